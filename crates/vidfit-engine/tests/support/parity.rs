//! How near a video is to the reference's.

use super::{Case, distance, kept, largest_difference, tensor};
use vidfit_engine::generate::Generated;
use vidfit_tensor::DType;

/// Distance of embeddings and latents in f32.
const TENSOR_TOLERANCE: f64 = 1e-4;
/// Largest difference of a pixel, of a range of 1.
const FRAME_TOLERANCE: f32 = 2e-3;
/// How much farther from f32 than the reference a run in a half type may be.
const HALF_FACTOR: f64 = 1.5;

/// Whether an f32 result is the reference's.
pub fn equals(case: &Case, generated: &Generated) -> bool {
    let (ours, expected) = (kept(generated), case.expected());
    let embeds = distance(&ours.prompt_embeds, &case.expected_embeds());
    let latents = distance(&ours.latents, &tensor(&expected, "latents").1);
    let (_, frames) = tensor(&expected, "frames");
    assert_eq!(generated.frames.len(), case.frames_shape[0], "{}", case.name);
    let frames = largest_difference(&case.stored(&ours.frames), &frames);
    // Where a deviation begins, of those that start from pixels.
    let beginnings =
        [("image_latents", &ours.image_latents), ("start_latents", &ours.start_latents)];
    let beginnings = beginnings.into_iter().filter(|(name, _)| expected.contains(name));
    let beginnings: Vec<(&str, f64)> =
        beginnings.map(|(name, ours)| (name, distance(ours, &tensor(&expected, name).1))).collect();
    print!("{:40} embeddings {embeds:7.1e}  ", case.name);
    beginnings.iter().for_each(|(name, distance)| print!("{name} {distance:7.1e}  "));
    println!("latents {latents:7.1e}  frames {frames:7.1e}");
    let is_close = |distance: f64| distance <= TENSOR_TOLERANCE;
    is_close(embeds)
        && beginnings.iter().all(|(_, distance)| is_close(*distance))
        && is_close(latents)
        && frames <= FRAME_TOLERANCE
}

/// In what a result in a half type is farther from f32 than it may be, or so near that it was none.
pub fn farther(case: &Case, dtype: DType, generated: &Generated) -> Vec<String> {
    let own = case.own_distance(dtype).unwrap();
    let (ours, expected) = (kept(generated), case.expected());
    let stages = [
        ("embeddings", &ours.prompt_embeds, case.expected_embeds(), own.prompt_embeds),
        ("latents", &ours.latents, tensor(&expected, "latents").1, own.latents),
        ("frames", &case.stored(&ours.frames), tensor(&expected, "frames").1, own.frames),
    ];
    print!("{dtype:4} {:24}", case.name);
    let mut misses = Vec::new();
    for (stage, ours, theirs, own) in stages {
        let ours = distance(ours, &theirs);
        print!("  {stage} {ours:7.1e} {:4.2}", ours / own);
        // At nothing a run in a half type would not have been one.
        if !(own / 100.0..=HALF_FACTOR * own).contains(&ours) {
            misses.push(format!("{dtype} {} {stage}: {ours:.2e}, {own:.2e}", case.name));
        }
    }
    println!();
    misses
}
