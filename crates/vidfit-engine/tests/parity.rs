//! Videos equal the reference's, for every variant and case.

mod support;

use std::sync::Arc;
use support::{
    Case, distance, job, kept, largest_difference, prepare_job, run, run_prepared, tensor,
};
use vidfit_cpu::CpuDevice;
use vidfit_engine::generate::Generated;
use vidfit_tensor::DType;

/// Distance of embeddings and latents in f32.
const TENSOR_TOLERANCE: f64 = 1e-4;
/// Largest difference of a pixel, of a range of 1.
const FRAME_TOLERANCE: f32 = 2e-3;
/// How much farther from f32 than the reference a run in a half type may be.
const HALF_FACTOR: f64 = 1.5;

/// Whether an f32 result is the reference's.
fn equals(case: &Case, generated: &Generated) -> bool {
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

#[test]
fn every_case_equals_the_reference_in_f32() {
    let mut failures = Vec::new();
    for case in Case::all().iter().filter(|case| case.valid_request) {
        let (_, generated) = run(&case.open(), &case.request(DType::F32), 2);
        if !equals(case, &generated) {
            failures.push(case.name.clone());
        }
    }
    assert!(failures.is_empty(), "these miss the reference: {failures:?}");
}

/// A request cannot have 13 frames; the reference makes four latents of them, without padding,
/// and sixteen frames of those.
#[test]
fn an_even_number_of_latents_decodes_as_in_the_reference() {
    let case = Case::named("1.5-even-latents");
    let checkpoint = case.open();
    let mut request = case.request(DType::F32);
    request.frames = Some(9);
    let mut job = job(&checkpoint, &request);
    assert_eq!((job.latent_frames, job.padding_frames), (4, 1));
    (job.padding_frames, job.frames) = (0, 16);
    let device = Arc::new(CpuDevice::new(2).unwrap());
    let prepared = prepare_job(&checkpoint, job, &*device);
    assert!(equals(&case, &run_prepared(&checkpoint, &prepared, device)));
}

#[test]
fn every_case_has_the_references_token_ids() {
    for case in Case::all() {
        let mut request = case.request(DType::F32);
        if !case.valid_request {
            request.frames = Some(9);
        }
        let job = job(&case.open(), &request);
        let ids: Vec<f32> = job.prompts.last().unwrap().iter().map(|&id| id as f32).collect();
        assert_eq!(ids, tensor(&case.expected(), "input_ids").1, "{}", case.name);
        assert_eq!(job.prompts.len(), if case.guidance > 1.0 { 2 } else { 1 }, "{}", case.name);
    }
}

#[test]
fn half_types_are_no_farther_from_f32_than_the_references() {
    let (mut misses, mut compared) = (Vec::new(), 0);
    println!("distance to the reference in f32: ours, ratio to the reference's own");
    for dtype in [DType::BF16, DType::F16] {
        for case in Case::all() {
            let Some(own) = case.own_distance(dtype) else { continue };
            let (_, generated) = run(&case.open(), &case.request(dtype), 2);
            let (ours, expected) = (kept(&generated), case.expected());
            let stages = [
                ("embeddings", &ours.prompt_embeds, case.expected_embeds(), own.prompt_embeds),
                ("latents", &ours.latents, tensor(&expected, "latents").1, own.latents),
                ("frames", &case.stored(&ours.frames), tensor(&expected, "frames").1, own.frames),
            ];
            print!("{dtype:4} {:24}", case.name);
            for (stage, ours, theirs, own) in stages {
                let ours = distance(ours, &theirs);
                print!("  {stage} {ours:7.1e} {:4.2}", ours / own);
                compared += 1;
                // At nothing a run in a half type would not have been one.
                if !(own / 100.0..=HALF_FACTOR * own).contains(&ours) {
                    misses.push(format!("{dtype} {} {stage}: {ours:.2e}, {own:.2e}", case.name));
                }
            }
            println!();
        }
    }
    assert!(compared >= 36, "only {compared} values were compared");
    assert!(misses.is_empty(), "{misses:#?}");
}
