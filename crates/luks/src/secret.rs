// SPDX-License-Identifier: Apache-2.0
//! A passphrase. It is wiped when it is dropped, and shown by nothing.
use std::fmt;

use zeroize::Zeroizing;

/// A passphrase.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the passphrase over.
    pub fn new(passphrase: Vec<u8>) -> Self {
        Secret(Zeroizing::new(passphrase))
    }

    /// The passphrase.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new(b"abc".to_vec())), "Secret(..)");
    }
}
