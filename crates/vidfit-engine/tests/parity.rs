//! Videos equal the reference's, for every variant and case.

mod support;

use std::sync::Arc;
use support::parity::{equals, farther};
use support::{Case, job, prepare_job, run, run_prepared, tensor};
use vidfit_cpu::CpuDevice;
use vidfit_tensor::DType;

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
            if case.own_distance(dtype).is_none() {
                continue;
            }
            let (_, generated) = run(&case.open(), &case.request(dtype), 2);
            compared += 1;
            misses.extend(farther(&case, dtype, &generated));
        }
    }
    assert!(compared >= 12, "only {compared} videos were compared");
    assert!(misses.is_empty(), "{misses:#?}");
}
