//! Checksums by which the hub names contents.

use std::fmt::Write;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a blob's name says about its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChecksumKind {
    /// Large files are named by the SHA-256 of their contents.
    Sha256,
    /// Small files are named as git names them: SHA-1 of `blob <length>\0` and the contents.
    GitSha1,
    /// Other servers may name files in ways that say nothing.
    Opaque,
}

impl ChecksumKind {
    pub fn of_name(name: &str) -> Self {
        let is_hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match name.len() {
            64 if is_hex => Self::Sha256,
            40 if is_hex => Self::GitSha1,
            _ => Self::Opaque,
        }
    }
}

/// The checksum of contents that arrive in pieces.
pub(super) enum RunningChecksum {
    Sha256(Sha256),
    GitSha1(Sha1),
    Opaque,
}

impl RunningChecksum {
    pub fn new(kind: ChecksumKind, total_bytes: u64) -> Self {
        match kind {
            ChecksumKind::Sha256 => Self::Sha256(Sha256::new()),
            ChecksumKind::GitSha1 => {
                let mut sha1 = Sha1::new();
                sha1.update(format!("blob {total_bytes}\0"));
                Self::GitSha1(sha1)
            }
            ChecksumKind::Opaque => Self::Opaque,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha256) => sha256.update(bytes),
            Self::GitSha1(sha1) => sha1.update(bytes),
            Self::Opaque => {}
        }
    }

    /// In lower-case hexadecimal; `None` if there is nothing to compare.
    pub fn finish(self) -> Option<String> {
        match self {
            Self::Sha256(sha256) => Some(hexadecimal(&sha256.finalize())),
            Self::GitSha1(sha1) => Some(hexadecimal(&sha1.finalize())),
            Self::Opaque => None,
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        let checksum = |kind, text: &str| {
            let mut running = RunningChecksum::new(kind, text.len() as u64);
            text.as_bytes().chunks(2).for_each(|piece| running.update(piece));
            running.finish()
        };
        // `printf hello | git hash-object --stdin` and `sha256sum`.
        assert_eq!(
            checksum(ChecksumKind::GitSha1, "hello").unwrap(),
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
        );
        assert_eq!(
            checksum(ChecksumKind::Sha256, "hello").unwrap(),
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
        assert_eq!(checksum(ChecksumKind::Opaque, "hello"), None);
    }
}
