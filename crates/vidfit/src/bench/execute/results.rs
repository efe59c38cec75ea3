//! What comes out of a phase: whether it is finite, and a digest of its bits.

use vidfit_cogvideox::vae::Piece;
use vidfit_engine::text_to_video::Outputs;
use vidfit_tensor::{Context, Error, Tensor};

/// The results of a phase. A dry run asks for the same copies and has no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// FNV-1a over the bits of all values, in the order in which they came.
    pub digest: u64,
    /// How many values there were.
    pub values: usize,
    /// How many of them were infinite or no numbers.
    pub not_finite: usize,
}

impl Default for Results {
    fn default() -> Results {
        Results { digest: 0xcbf2_9ce4_8422_2325, values: 0, not_finite: 0 }
    }
}

impl Results {
    fn take(&mut self, cx: &Context<'_>, tensor: &Tensor) -> Result<(), Error> {
        let elements = if cx.arena.is_recording() { 0 } else { tensor.shape().elements() };
        let mut values = vec![0.0; elements];
        cx.device.download(tensor, &mut values)?;
        for value in &values {
            for byte in value.to_bits().to_le_bytes() {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        self.not_finite += values.iter().filter(|value| !value.is_finite()).count();
        self.values += values.len();
        Ok(())
    }
}

impl Outputs for Results {
    fn step_done(
        &mut self,
        cx: &Context<'_>,
        _: usize,
        latents: &Tensor,
        previous: Option<&Tensor>,
    ) -> Result<(), Error> {
        std::iter::once(latents).chain(previous).try_for_each(|tensor| self.take(cx, tensor))
    }

    fn latents(&mut self, cx: &Context<'_>, latents: &Tensor) -> Result<(), Error> {
        self.take(cx, latents)
    }

    fn piece(&mut self, cx: &Context<'_>, piece: Piece<'_>) -> Result<(), Error> {
        self.take(cx, piece.pixels)
    }
}
