//! The encode phase: from the pixels that a video starts from to latents.

use super::{ComponentWeights, Noise};
use crate::pixels::Pixels;
use crate::placement::Placed;
use crate::request::Start;
use vidfit_cogvideox::vae::{self, Rectangle};
use vidfit_tensor::{Context, Error, Tensor};

/// The encode phase, by itself what [`super::run`] makes of `pixels`: a draw from the encoder's
/// posterior, scaled, `[F, C, h, w]`. The encoder's weights are `placed` already, or are for this
/// phase alone. A dry run needs no pixels.
///
/// # Errors
/// As [`vae::encode`].
pub fn encode<'a>(
    cx: &Context<'_>,
    weights: &ComponentWeights<'a>,
    placed: Option<&Placed<'a>>,
    pixels: Option<&Pixels>,
    noise: &mut Noise,
) -> Result<Tensor, Error> {
    let (job, config) = (weights.job, &weights.checkpoint.vae.config);
    let own = match placed {
        Some(_) => None,
        None => Some(weights.encoder()?),
    };
    let placed = placed.or(own.as_ref()).expect("one of the two");
    let mut fill = |rectangle: Rectangle, values: &mut [f32]| match pixels {
        Some(pixels) => {
            pixels.fill(rectangle, values);
            Ok(())
        }
        None => Err(Error::model("there are no pixels to start from")),
    };
    let size = (job.given_frames, job.height, job.width);
    let (tiling, schedule) = (job.encode_tiling, weights.schedule.encoder);
    let moments = vae::encode(cx, placed, config, job.dtype, size, &mut fill, tiling, schedule)?;
    drop(own);

    let shape = [moments.dims()[0], job.channels, job.latent_height, job.latent_width];
    let drawn = || {
        let plane = job.latent_height * job.latent_width;
        vae::frames_first(&noise.draw(shape), job.channels, plane)
    };
    let mut latents = cx.upload("encoded latents", job.dtype, shape, drawn)?;
    let factor = match job.start {
        Start::Image => config.image_factor(),
        Start::Text | Start::Video { .. } => config.video_factor(),
    };
    let noise = latents.clone();
    vae::sample(cx, &moments, &noise, factor, &mut latents);
    Ok(latents)
}
