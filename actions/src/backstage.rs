//! Heavy work off the async threads, on threads of its own that get the processor when nobody else wants it: who makes the portal hash
//! passwords as fast as it can keeps nobody from looking at pages.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::error::ActError;

/// How far behind everything else it comes, of 19.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// A few such threads. They end with the last of those who hold them.
#[derive(Debug, Clone)]
pub(crate) struct Backstage {
    turns: Arc<Semaphore>,
    work: Sender<Work>,
}

impl Backstage {
    /// At most so much at a time.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub(crate) fn new(at_once: usize) -> Self {
        let (work, waiting) = channel::<Work>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..at_once {
            let waiting = Arc::clone(&waiting);
            let thread = std::thread::Builder::new().name("backstage".to_owned());
            thread.spawn(move || serve(&waiting)).expect("a thread can be started");
        }
        Self { turns: Arc::new(Semaphore::new(at_once)), work }
    }

    /// Does it when its turn comes. The turn goes with the work: who hangs up does not free it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ActError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(ActError::internal)?;
        let (done, wanted) = oneshot::channel();
        let work: Work = Box::new(move || {
            let result = work();
            drop(turn);
            // Who asked may have hung up.
            let _ = done.send(result);
        });
        self.work.send(work).map_err(|_| ActError::internal("nobody works backstage"))?;
        wanted.await.map_err(ActError::internal)
    }
}

fn serve(waiting: &Mutex<Receiver<Work>>) {
    // Of this thread alone: so Linux has it, whatever POSIX says. Where it may not, it works all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // One that panics takes its own answer with it, and nobody's else.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_goes_on_after_a_panic_and_comes_behind_everything_else() {
        let backstage = Backstage::new(1);
        let work: fn() -> u8 = || panic!("on purpose");
        assert!(backstage.run(work).await.is_err());
        let nice = || rustix::process::getpriority_process(None).unwrap();
        assert_eq!(backstage.run(nice).await.unwrap(), NICE.max(nice()));
    }
}
