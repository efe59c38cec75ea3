//! What comes out of a phase: whether it is finite, and a digest of its bits.

use vidfit_cogvideox::vae::Piece;
use vidfit_engine::digest::Digest;
use vidfit_engine::pipeline::{Outputs, Reached};
use vidfit_tensor::{Context, Error, Tensor};

/// The results of a phase. A dry run asks for the same copies and has no values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Of the bits of all values, in the order in which they came.
    pub digest: Digest,
    /// How many values there were.
    pub values: usize,
    /// How many of them were infinite or no numbers.
    pub not_finite: usize,
}

impl Results {
    fn take(&mut self, cx: &Context<'_>, tensor: &Tensor) -> Result<(), Error> {
        let elements = if cx.arena.is_recording() { 0 } else { tensor.shape().elements() };
        let mut values = vec![0.0; elements];
        cx.device.download(tensor, &mut values)?;
        for value in &values {
            self.digest.add(&value.to_bits().to_le_bytes());
        }
        self.not_finite += values.iter().filter(|value| !value.is_finite()).count();
        self.values += values.len();
        Ok(())
    }
}

impl Outputs for Results {
    fn step_done(&mut self, cx: &Context<'_>, reached: &Reached<'_>) -> Result<(), Error> {
        let mut kept = std::iter::once(reached.latents).chain(reached.previous);
        kept.try_for_each(|tensor| self.take(cx, tensor))
    }

    fn latents(&mut self, cx: &Context<'_>, latents: &Tensor) -> Result<(), Error> {
        self.take(cx, latents)
    }

    fn piece(&mut self, cx: &Context<'_>, piece: Piece<'_>) -> Result<(), Error> {
        self.take(cx, piece.pixels)
    }
}
