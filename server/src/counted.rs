//! What somebody takes and gives back, counted, so that no single one takes all that there is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of something each holder has.
#[derive(Debug)]
pub struct Counted<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

impl<K> Clone for Counted<K> {
    fn clone(&self) -> Self {
        Self { held: Arc::clone(&self.held), most: self.most }
    }
}

impl<K: Eq + Hash + Clone> Counted<K> {
    /// At most `most` at a time for each holder.
    pub fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// One more, as long as what is given is kept; `None` when the holder has all that it may have.
    pub fn take(&self, holder: K) -> Option<Held<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&holder).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        held.insert(holder.clone(), count + 1);
        Some(Held { holder, held: Arc::clone(&self.held) })
    }
}

/// One that is held; dropping it gives it back.
#[derive(Debug)]
pub struct Held<K: Eq + Hash> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_so_many_and_others_have_theirs() {
        let counted = Counted::new(2);
        let (first, _second) = (counted.take("ann").unwrap(), counted.take("ann").unwrap());
        assert!(counted.take("ann").is_none());
        assert!(counted.take("bob").is_some());
        drop(first);
        assert!(counted.take("ann").is_some());
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let counted = Counted::new(1);
        let held = counted.take("ann");
        assert!(counted.take("ann").is_none());
        drop(held);
        assert!(counted.held.lock().unwrap().is_empty());
    }
}
