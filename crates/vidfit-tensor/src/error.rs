//! What can go wrong below the models.

/// An error of the arena, the device, or whatever brings the weights.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run asked for other memory than its plan says.
    #[error("the run left its memory plan at event {event}: {what} (this is a bug in vidfit)")]
    Deviation {
        /// Index of the event in the trace.
        event: usize,
        /// What was planned and what was asked for.
        what: String,
    },
    /// There is less memory than the plan needs.
    #[error(
        "the plan needs {required_bytes} bytes of device memory, but only {available_bytes} may be used"
    )]
    DoesNotFit {
        /// What the plan needs, scratch included.
        required_bytes: u64,
        /// What may be used.
        available_bytes: u64,
    },
    /// The device could not reserve the arena or failed while computing.
    #[error("{device}: {what}")]
    Device {
        /// The device's name.
        device: String,
        /// What failed, and what to do about it.
        what: String,
    },
    /// A copy between host and device failed. Another try may succeed.
    #[error("{device}: a copy failed: {what}")]
    Transfer {
        /// The device's name.
        device: String,
        /// What failed.
        what: String,
    },
    /// An error of the model's own: weights that cannot be read, sizes it has no positions for.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Wraps an error of the model's own.
    pub fn model(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Model(error.into())
    }
}
