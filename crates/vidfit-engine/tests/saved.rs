//! A saved plan is executed exactly, or refused.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use support::{Case, kept, run_prepared};
use vidfit_cpu::{SimConfig, SimDevice};
use vidfit_engine::EngineError;
use vidfit_engine::planner::{Ask, Offload, SavedPlan, Target};
use vidfit_engine::request::Request;
use vidfit_engine::schedule::Schedule;
use vidfit_tensor::DType;

fn saved(case: &Case, offload: Offload) -> (SavedPlan, Arc<SimDevice>) {
    let checkpoint = case.open();
    let device = Arc::new(SimDevice::new(SimConfig::new(1 << 30)).unwrap());
    let target = Target::of_device(&*device, 1 << 30);
    let request = case.request(DType::F32);
    let ask = Ask { checkpoint: &checkpoint, request: &request, offload, target: &target };
    let planned = ask.plan().unwrap().unwrap();
    (SavedPlan::of(&checkpoint, "a-model", &request, &planned), device)
}

#[test]
fn a_plan_goes_through_a_file_and_is_run_as_it_is() {
    let strategies = [Offload::Sequential, Offload::Percent(40), Offload::None];
    let cases = ["5b-dpm", "5b-v2v-tiled"].map(Case::named);
    for (case, offload) in cases.iter().flat_map(|case| strategies.map(|offload| (case, offload))) {
        let checkpoint = case.open();
        let (plan, device) = saved(case, offload);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        plan.save(&path).unwrap();
        let read = SavedPlan::load(&path).unwrap();
        assert_eq!(read, plan);
        let prepared = read.prepare(&checkpoint, &Target::of_device(&*device, 1 << 30)).unwrap();
        assert_eq!(prepared.plan.device_bytes(), plan.report.peak_bytes);
        assert_eq!(prepared.schedule, plan.run.schedule);
        let generated = run_prepared(&checkpoint, &prepared, device.clone());
        assert_eq!(device.violations(), Vec::<String>::new());
        let (_, expected) = support::run(&checkpoint, &case.request(DType::F32), 2);
        assert!(kept(&generated).latents == kept(&expected).latents, "{offload}");
        assert!(generated.frames == expected.frames, "{offload}");
    }
}

#[test]
fn a_plan_that_leads_elsewhere_is_refused() {
    let case = Case::named("5b-dpm");
    let checkpoint = case.open();
    let (plan, device) = saved(&case, Offload::Sequential);
    let refused =
        |plan: &SavedPlan| match plan.prepare(&checkpoint, &Target::of_device(&*device, 1 << 30)) {
            Err(EngineError::Request(why)) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was accepted"),
        };
    let mut other = plan.clone();
    other.run.schedule.denoise.slots = 2;
    assert!(refused(&other).contains("does not lead to the same memory"));
    let mut other = plan.clone();
    other.run.request = Request { frames: Some(17), ..other.run.request };
    refused(&other);
    let mut other = plan.clone();
    other.run.digest = "0".into();
    refused(&other);
    // What a schedule must not hold.
    let heads = checkpoint.transformer.config.num_attention_heads;
    for change in [
        (|schedule| schedule.transformer.rows = 0) as fn(&mut Schedule),
        |schedule| schedule.transformer.rows = usize::MAX,
        |schedule| schedule.transformer.head_groups = 0,
        |schedule| schedule.transformer.head_groups = 7919,
        |schedule| schedule.denoise.slots = 0,
        |schedule| schedule.text.slots = usize::MAX,
    ] {
        let mut other = plan.clone();
        change(&mut other.run.schedule);
        assert!(other.run.schedule.problem(heads).is_some());
        refused(&other);
    }
    let mut boundless = plan.clone();
    let request = &mut boundless.run.request;
    (request.frames, request.height, request.width) = (Some(4097), Some(16_384), Some(16_384));
    refused(&boundless);
    // Another device, with another alignment.
    let profile = vidfit_cpu::CpuDevice::profile_of(2);
    let cpu = Target { profile, ..Target::of_device(&*device, 1 << 30) };
    assert!(plan.prepare(&checkpoint, &cpu).is_err());
    assert!(
        plan.prepare(&Case::named("2b-ddim").open(), &Target::of_device(&*device, 1 << 30))
            .is_err()
    );
}

#[test]
fn a_file_that_is_no_plan_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    assert!(matches!(SavedPlan::load(&path), Err(EngineError::File { .. })));
    let (plan, _) = saved(&Case::named("5b-dpm"), Offload::Sequential);
    plan.save(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let damaged = [
        text[..text.len() / 2].to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        text.replacen("\"version\": 1", "\"version\": 2", 1),
        text.replacen("\"schedule\"", "\"shedule\"", 1),
        text.replacen("\"steps\": ", "\"steps\": -", 2),
        text.replacen("\"budget_bytes\": ", "\"budget_bytes\": 1", 1),
        text.replacen("\"seed\": ", "\"seed\": 1", 1),
    ];
    for text in damaged {
        std::fs::write(&path, text).unwrap();
        let error = SavedPlan::load(&path).unwrap_err();
        assert!(matches!(error, EngineError::Request(_)), "{error}");
        assert!(error.to_string().contains("plan.json"), "{error}");
    }
}
