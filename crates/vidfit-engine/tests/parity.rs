//! Videos equal the reference's, for every variant and case.

mod support;

use support::{Case, distance, kept, largest_difference, run, tensor};
use vidfit_tensor::DType;

/// Distance of embeddings and latents in f32.
const TENSOR_TOLERANCE: f64 = 1e-4;
/// Largest difference of a pixel, of a range of 1.
const FRAME_TOLERANCE: f32 = 2e-3;

#[test]
fn every_case_equals_the_reference_in_f32() {
    let mut failures = Vec::new();
    for case in Case::all().iter().filter(|case| case.valid_request) {
        let checkpoint = case.open();
        let (_, generated) = run(&checkpoint, &case.request(DType::F32), 2);
        let (ours, expected) = (kept(&generated), case.expected());

        let embeds = expected
            .contains("prompt_embeds")
            .then(|| distance(&ours.prompt_embeds, &tensor(&expected, "prompt_embeds").1));
        let latents = distance(&ours.latents, &tensor(&expected, "latents").1);
        let (shape, frames) = tensor(&expected, "frames");
        assert_eq!(generated.frames.len(), shape[0], "{}", case.name);
        let frames = largest_difference(&ours.frames, &frames);
        println!(
            "{:40} embeddings {:8.1e}  latents {latents:8.1e}  frames {frames:8.1e}",
            case.name,
            embeds.unwrap_or(f64::NAN)
        );
        if embeds.is_some_and(|d| d > TENSOR_TOLERANCE)
            || latents > TENSOR_TOLERANCE
            || frames > FRAME_TOLERANCE
        {
            failures.push(case.name.clone());
        }
    }
    assert!(failures.is_empty(), "these miss the reference: {failures:?}");
}
