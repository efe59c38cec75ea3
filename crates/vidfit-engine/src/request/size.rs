//! Frames, height and width: what a model can make, and what it was made for.

use super::{Request, Start, Warnings, refuse};
use crate::checkpoint::Checkpoint;
use crate::error::EngineError;

/// No published model goes beyond a tenth of this; it keeps arithmetic on sizes in bounds.
const LARGEST_SIDE: usize = 16_384;
/// No model makes so many frames by far; it keeps arithmetic on numbers of frames in bounds.
pub const MOST_FRAMES: usize = 4_097;

/// The numbers of frames that a model takes: `step · N + first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCounts {
    /// From one number to the next.
    pub step: usize,
    /// The least.
    pub first: usize,
}

impl FrameCounts {
    /// Those of a checkpoint. Only 8·N + 1 frames come out of the VAE as they went in. A model whose
    /// patches span two latent frames fills up an odd number of them, but not those of a video that
    /// it starts from: there, the reference takes even numbers alone, those of 8·N + 5 frames.
    pub fn of(checkpoint: &Checkpoint, start: Start) -> FrameCounts {
        let ratio = checkpoint.vae.config.temporal_compression_ratio;
        let (patch_frames, _) = checkpoint.transformer.config.patch();
        let is_padded = !matches!(start, Start::Video { .. });
        let first = if is_padded || patch_frames == 1 { 1 } else { ratio + 1 };
        FrameCounts { step: 2 * ratio, first }
    }

    /// Number `index` of them.
    pub fn nth(self, index: usize) -> usize {
        self.step * index + self.first
    }

    /// The largest that is no larger than `frames`; the least if all are.
    pub fn at_most(self, frames: usize) -> usize {
        self.nth(frames.saturating_sub(self.first) / self.step)
    }

    /// Those next to `frames`.
    fn nearest(self, frames: usize) -> Vec<usize> {
        let counted = frames.saturating_sub(self.first);
        let nearest = nearest(counted, self.step, MOST_FRAMES - self.first);
        nearest.into_iter().map(|count| count + self.first).collect()
    }
}

/// How many frames latents become: an even number of them gives four each, as in the reference.
pub(super) fn decoded_frames(latents: usize, ratio: usize) -> usize {
    if latents.is_multiple_of(2) { latents * ratio } else { (latents - 1) * ratio + 1 }
}

/// Frames, height and width: asked for or the model's own.
pub(super) fn size(
    checkpoint: &Checkpoint,
    request: &Request,
    warnings: &mut Warnings,
) -> Result<(usize, usize, usize), EngineError> {
    let (variant, config) = (checkpoint.variant, &checkpoint.transformer.config);
    let name = checkpoint.name();
    let ratio = checkpoint.vae.config.spatial_ratio();
    let own = (config.sample_width * ratio, config.sample_height * ratio);
    let own = match variant.published_size() {
        Some(published) if published.0 <= own.0 && published.1 <= own.1 => published,
        _ => own,
    };
    let counts = FrameCounts::of(checkpoint, request.start);
    let frames = request.frames.unwrap_or_else(|| counts.at_most(config.sample_frames));
    let (width, height) = (request.width.unwrap_or(own.0), request.height.unwrap_or(own.1));

    if frames > MOST_FRAMES {
        return refuse(format!(
            "{frames} frames are more than vidfit makes: at most {MOST_FRAMES}"
        ));
    }
    if frames < counts.first || !(frames - counts.first).is_multiple_of(counts.step) {
        let FrameCounts { step, first } = counts;
        let nearest: Vec<String> =
            counts.nearest(frames).iter().map(|frames| frames.to_string()).collect();
        let why = match first {
            1 => String::new(),
            _ => format!(
                ", an even number of latent frames, to start {name} from a video (text alone is \
                 filled up)"
            ),
        };
        return refuse(format!(
            "{frames} frames cannot be made: it takes {step}·N + {first}{why}. The nearest: {}",
            nearest.join(" or ")
        ));
    }
    let unit = checkpoint.size_unit();
    for (name, pixels) in [("height", height), ("width", width)] {
        if pixels > LARGEST_SIDE {
            return refuse(format!(
                "a {name} of {pixels} pixels is more than vidfit makes: at most {LARGEST_SIDE}"
            ));
        }
        if pixels == 0 || !pixels.is_multiple_of(unit) {
            let nearest = nearest(pixels.max(1), unit, LARGEST_SIDE);
            let nearest: Vec<String> =
                nearest.iter().filter(|&&n| n > 0).map(|n| n.to_string()).collect();
            return refuse(format!(
                "a {name} of {pixels} pixels cannot be made: it takes a multiple of {unit}. The \
                 nearest: {}",
                nearest.join(" or ")
            ));
        }
    }

    if frames > checkpoint.most_frames() {
        warnings.push(format!(
            "{frames} frames are more than {name} was made for ({}); expect a worse video",
            checkpoint.most_frames()
        ));
    } else if variant.is_one_five() && counts.first == 1 && !(frames - 1).is_multiple_of(16) {
        warnings.push(format!("{name} was made for 16·N + 1 frames, not {frames}"));
    }
    if (width, height) != own {
        warnings.push(format!(
            "{name} was made for {}×{} pixels, not {width}×{height}; expect a worse video",
            own.0, own.1
        ));
    }
    Ok((frames, height, width))
}

/// The multiples of `step` next to `value`, at most `most`.
fn nearest(value: usize, step: usize, most: usize) -> Vec<usize> {
    let below = (value / step * step).min(most / step * step);
    let above = below + step;
    if above > most || below == value { vec![below] } else { vec![below, above] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Variant;

    #[test]
    fn the_nearest_sizes_are_named() {
        assert_eq!(nearest(50, 8, 4096), [48, 56]);
        assert_eq!(nearest(7, 16, 16384), [0, 16]);
        assert_eq!(nearest(20_000, 16, 16384), [16384]);
    }

    #[test]
    fn even_latents_make_four_frames_each() {
        let frames = [1, 2, 3, 13, 12, 21].map(|latents| decoded_frames(latents, 4));
        assert_eq!(frames, [1, 8, 9, 49, 48, 81]);
    }

    #[test]
    fn one_five_starts_from_videos_of_an_even_number_of_latent_frames() {
        let video = Start::Video { strength: 0.8 };
        let one_five = Checkpoint::published(Variant::OneFive);
        let counts = FrameCounts::of(&one_five, video);
        assert_eq!(counts, FrameCounts { step: 8, first: 5 });
        assert_eq!(counts.nearest(81), [77, 85]);
        assert_eq!(counts.nearest(3), [5]);
        assert_eq!([4, 5, 12, 13].map(|frames| counts.at_most(frames)), [5, 5, 5, 13]);
        assert_eq!(FrameCounts::of(&one_five, Start::Text).first, 1);
        let five_b = Checkpoint::published(Variant::FiveB);
        assert_eq!(FrameCounts::of(&five_b, video), FrameCounts { step: 8, first: 1 });
    }
}
