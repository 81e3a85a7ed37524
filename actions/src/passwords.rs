//! Portal passwords: hashed with argon2id off the async threads, at most a few at a time; strength and common ones.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use policy::account::PasswordStrength;
use policy::people;
use zeroize::Zeroizing;

use crate::backstage::Backstage;
use crate::error::ActError;

/// Lowest zxcvbn score that is taken.
const MIN_SCORE: u8 = 3;
/// So many characters are judged. The time it takes grows fast with their number, and who has as many good ones needs no more.
const JUDGED_CHARS: usize = 40;

/// Hashes and verifies passwords. Parameters are the library's default: OWASP's argon2id 19 MiB, 2 passes, 1 lane.
#[derive(Debug, Clone)]
pub struct Passwords {
    hashing: Backstage,
    /// Of its own, so that asking how strong a password is keeps nobody from logging in.
    judging: Backstage,
    /// Of its own, so that asking how strong passwords are keeps nobody from choosing one.
    checking: Backstage,
}

/// The hash of a password that nobody has: verified against when an account does not exist, so that both take as long.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    Argon2::default()
        .hash_password(crate::tokens::link_token().as_bytes())
        .map(|hash| hash.to_string())
        .unwrap_or_default()
});

impl Passwords {
    /// At most `at_once` hashes run at a time; each takes 19 MiB.
    pub fn new(at_once: usize) -> Self {
        LazyLock::force(&NOBODY);
        Self { hashing: Backstage::new(at_once), judging: Backstage::new(1), checking: Backstage::new(1) }
    }

    /// Hashes a new password into a PHC string.
    pub async fn hash(&self, password: &str) -> Result<String, ActError> {
        let password = Zeroizing::new(password.to_owned());
        self.hashing
            .run(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| ActError::internal(error.to_string()))
    }

    /// Whether a password is the one of a PHC string; with `None` it never is, after the same time.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, ActError> {
        let known = hash.is_some();
        let hash = hash.map_or_else(|| NOBODY.clone(), str::to_owned);
        let password = Zeroizing::new(password.to_owned());
        let verify = move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        };
        let right = self.hashing.run(verify).await?;
        Ok(right && known)
    }

    /// How strong a password is, given what it should not contain.
    pub async fn strength(&self, password: &str, words: &[String]) -> Result<PasswordStrength, ActError> {
        judge(&self.judging, password, words).await
    }

    /// Checks a new password: length, strength, common ones.
    ///
    /// # Errors
    /// The sentence to show.
    pub async fn check_new(&self, password: &str, words: &[String]) -> Result<Result<(), String>, ActError> {
        if let Err(message) = people::check_password_length(password) {
            return Ok(Err(message));
        }
        let strength = judge(&self.checking, password, words).await?;
        Ok(if strength.score < MIN_SCORE { Err(strength.hint) } else { Ok(()) })
    }
}

async fn judge(at_once: &Backstage, password: &str, words: &[String]) -> Result<PasswordStrength, ActError> {
    let password = Zeroizing::new(password.chars().take(JUDGED_CHARS).collect::<String>());
    let words: Vec<String> = words.iter().take(8).map(|word| word.chars().take(100).collect()).collect();
    at_once.run(move || estimate(&password, &words)).await
}

fn estimate(password: &str, words: &[String]) -> PasswordStrength {
    let words: Vec<&str> =
        words.iter().flat_map(|word| std::iter::once(word.as_str()).chain(word.split(['@', '.', ' ', '-']))).collect();
    let estimate = zxcvbn::zxcvbn(password, &words);
    let score = u8::from(estimate.score());
    let hint = if score >= MIN_SCORE {
        String::new()
    } else {
        let warning =
            estimate.feedback().and_then(zxcvbn::feedback::Feedback::warning).map(|warning| warning.to_string());
        format!(
            "{} A few unrelated words make a password that is easy to keep and hard to guess.",
            warning.unwrap_or_else(|| "This password would be guessed too soon.".to_owned())
        )
    };
    PasswordStrength { score, hint }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn only_the_beginning_of_a_long_password_is_judged() {
        let passwords = Passwords::new(1);
        let dull = "a".repeat(JUDGED_CHARS);
        let alike = passwords.strength(&dull, &[]).await.unwrap();
        let long = format!("{dull}violet tractor hums softly");
        assert_eq!(passwords.strength(&long, &[]).await.unwrap(), alike);
        assert!(passwords.check_new(&long, &[]).await.unwrap().is_err());
        let good = format!("violet tractor hums softly{}", "a".repeat(100));
        assert!(passwords.check_new(&good, &[]).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_asks_how_strong_passwords_are_keeps_nobody_from_choosing_one() {
        let passwords = Passwords::new(1);
        let (free, held) = std::sync::mpsc::channel::<()>();
        let judging = passwords.judging.clone();
        tokio::spawn(async move { judging.run(move || held.recv()).await });
        tokio::task::yield_now().await;
        let chosen = timeout(Duration::from_secs(10), passwords.check_new("violet tractor hums softly", &[])).await;
        chosen.expect("it does not wait").unwrap().unwrap();
        drop(free);
    }
}
