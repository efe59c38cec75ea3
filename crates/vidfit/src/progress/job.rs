//! What the jobs of a worker are called.

/// The name of a job, short enough to be copied to everybody who tells of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JobName {
    bytes: [u8; JobName::MOST_BYTES],
    length: usize,
}

impl JobName {
    /// No name is longer.
    pub const MOST_BYTES: usize = 64;

    /// The name, if it is no longer than names are.
    pub fn new(name: &str) -> Option<JobName> {
        let mut bytes = [0; JobName::MOST_BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(JobName { bytes, length: name.len() })
    }

    /// It.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_was_made_of() {
        for name in ["", "video_0123", "Ärger"] {
            assert_eq!(JobName::new(name).unwrap().as_str(), name);
        }
        assert!(JobName::new(&"x".repeat(JobName::MOST_BYTES)).is_some());
        assert!(JobName::new(&"x".repeat(JobName::MOST_BYTES + 1)).is_none());
    }
}
