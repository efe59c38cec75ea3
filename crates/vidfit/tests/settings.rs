//! Settings, environment and presets: what holds where the command line says nothing.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Output;
use support::{checkpoint, command, json, json_file, says, stderr, stdout};

/// Runs the program with these settings and variables.
fn with(folder: &Path, settings: &str, variables: &[(&str, &str)], words: &[&str]) -> Output {
    let file = folder.join("config.toml");
    std::fs::write(&file, settings).unwrap();
    let mut command = command(folder, words);
    command.env("VIDFIT_CONFIG", &file).envs(variables.iter().copied()).output().unwrap()
}

/// The request of a plan that is made so.
fn request(settings: &str, variables: &[(&str, &str)], words: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let model = checkpoint("2b");
    let words = [&["plan", "x", "--save", "plan.json"], words].concat();
    let model = [("VIDFIT_MODEL", model.to_str().unwrap())];
    let output = with(folder.path(), settings, &[&model, variables].concat(), &words);
    assert!(output.status.success(), "{}", stderr(&output));
    json_file(folder.path().join("plan.json"))["run"]["request"].clone()
}

/// Steps, guidance, curve and rule of a request.
fn sampling(request: &Value) -> String {
    let part = |key: &str| request[key].to_string();
    let parts = ["steps", "guidance", "dynamic_cfg", "timestep_rule"].map(part);
    parts.join(" ").replace('"', "")
}

#[test]
fn the_command_line_goes_before_the_preset_and_that_before_the_settings() {
    let settings = "steps = 20\nguidance = 4\ntimestep_rule = \"clean\"\n";
    let of =
        |variables: &[(&str, &str)], words: &[&str]| sampling(&request(settings, variables, words));
    assert_eq!(sampling(&request("", &[], &[])), "50 6.0 constant reference");
    assert_eq!(of(&[], &[]), "20 4.0 constant clean");
    assert_eq!(of(&[("VIDFIT_STEPS", "40")], &[]), "40 4.0 constant clean");
    assert_eq!(of(&[("VIDFIT_STEPS", "40")], &["--steps", "8"]), "8 4.0 constant clean");
    assert_eq!(of(&[], &["--preset", "high-motion"]), "60 6.5 smooth clean");
    assert_eq!(of(&[], &["--motion_preset", "fast"]), "30 5.0 smooth clean");
    let mixed = ["--preset", "quality", "--steps", "9", "--dynamic-cfg", "--timestep-rule"];
    assert_eq!(of(&[], &[&mixed[..], &["reference"]].concat()), "9 7.0 reference reference");
    assert_eq!(of(&[("VIDFIT_PRESET", "subtle")], &["--guidance=3"]), "55 3.0 smooth clean");
    // A preset of the settings stands behind what is set where it is, or in the environment.
    let settings = "preset = \"fast\"\nsteps = 10\n";
    assert_eq!(sampling(&request(settings, &[], &[])), "10 5.0 smooth clean");
    let variables = [("VIDFIT_GUIDANCE", "3"), ("VIDFIT_PRESET", "quality")];
    assert_eq!(sampling(&request(settings, &variables, &[])), "75 3.0 smooth clean");
    assert_eq!(sampling(&request(settings, &[], &["--preset", "subtle"])), "55 5.5 smooth clean");
}

#[test]
fn each_task_has_its_own_model() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        "t2v_model = \"5b\"\ni2v_model = \"5b-i2v\"\nv2v_model = \"2b\"\nmodel = \"1.5\"";
    for (words, model) in [
        (&[][..], "CogVideoX-5b"),
        (&["--image", "x.png"], "CogVideoX-5b-I2V"),
        (&["--video", "x.mp4"], "CogVideoX-2b"),
        (&["--generate_type", "i2v", "--image_or_video_path", "x.png"], "CogVideoX-5b-I2V"),
        (&["--generate_type", "v2v", "--image_or_video_path", "x.mp4"], "CogVideoX-2b"),
        (&["--video", "x.mp4", "--model", "5b"], "CogVideoX-5b"),
    ] {
        let words = [&["plan", "x", "--gpu", "RTX 4090", "--json"], words].concat();
        let plan = json(&with(folder.path(), settings, &[], &words));
        assert_eq!(plan["model"], model, "{words:?}");
    }
}

#[test]
fn every_preset_is_what_the_guide_says() {
    for (name, sampled) in [
        ("fast", "30 5.0 smooth clean"),
        ("balanced", "50 6.0 smooth clean"),
        ("quality", "75 7.0 smooth clean"),
        ("high_motion", "60 6.5 smooth clean"),
        ("subtle", "55 5.5 smooth clean"),
    ] {
        assert_eq!(sampling(&request("", &[], &["--preset", name])), sampled, "{name}");
    }
    let own = "[presets.Draft]\nsteps = 7\nscheduler = \"dpm\"\n[presets.fast]\nsteps = 3\n";
    let draft = request(own, &[], &["--preset", "draft"]);
    assert_eq!(sampling(&draft), "7 6.0 constant reference");
    assert_eq!(draft["scheduler"], "dpm");
    assert_eq!(sampling(&request(own, &[], &["--preset", "fast"])), "3 6.0 constant reference");
}

#[test]
fn a_prompt_may_follow_the_bare_flag() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["plan", "--dynamic-cfg", "a panda", "--save", "plan.json", "--model"];
    let model = checkpoint("5b");
    let output = with(folder.path(), "", &[], &[&words[..], &[model.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let request = &json_file(folder.path().join("plan.json"))["run"]["request"];
    assert_eq!(
        (&request["prompt"], &request["dynamic_cfg"]),
        (&"a panda".into(), &"reference".into())
    );
}

#[test]
fn config_says_where_each_value_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "\nseed = 7\nthreads = 3\n";
    let output = with(folder.path(), settings, &[("VIDFIT_THREADS", "1")], &["config", "--json"]);
    let config = json(&output);
    let of = |key: &str| {
        let entry = &config["values"][key];
        format!("{} from {}", entry["value"], entry["source"].as_str().unwrap())
    };
    assert_eq!(of("threads"), "\"1\" from VIDFIT_THREADS");
    assert!(of("seed").starts_with("\"7\" from ") && of("seed").ends_with("config.toml, line 2"));
    assert_eq!(of("steps"), "\"50\" from built in");
    let text = stdout(&with(folder.path(), settings, &[], &["config"]));
    says(&text, &["config.toml", "seed", "line 2", "VIDFIT_STEPS"]);
    let settings = "preset = \"fast\"\nsteps = 10\n";
    let config = json(&with(folder.path(), settings, &[], &["config", "--json"]));
    assert_eq!(config["values"]["guidance"]["value"], "5");
    assert_eq!(config["values"]["guidance"]["source"], "preset fast");
    assert_eq!(config["values"]["steps"]["value"], "10");
    let text = stdout(&with(folder.path(), "[presets.mine]\nsteps = 5\n", &[], &["presets"]));
    says(&text, &["mine", "--steps 5", "high_motion", "--guidance 6.5", "clean"]);
}

#[test]
fn settings_that_cannot_be_are_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for (settings, variables, preset, words) in [
        ("steps = \"many\"", vec![], "", &["config.toml, line 1", "steps", "many"][..]),
        ("stepps = 3", vec![], "", &["config.toml, line 1", "stepps", "`steps`"]),
        ("dtype = \"f8\"", vec![], "", &["line 1", "dtype", "f8", "bf16"]),
        ("", vec![("VIDFIT_OFFLOAD", "some")], "", &["VIDFIT_OFFLOAD", "some", "sequential"]),
        ("vram_buffer = \"2G\"", vec![], "", &["vram_buffer", "2G", "8GB"]),
        ("[presets.mine]\nstep = 3", vec![], "", &["line 2", "step", "guidance"]),
        ("preset = \"mine\"", vec![], "", &["mine", "balanced", "vidfit presets"]),
        ("", vec![], "nope", &["nope", "balanced", "vidfit presets"]),
    ] {
        let mut arguments = vec!["plan", "x", "--model", "2b", "--gpu", "RTX 3070"];
        if !preset.is_empty() {
            arguments.extend(["--preset", preset]);
        }
        let output = with(folder.path(), settings, &variables, &arguments);
        assert_eq!(output.status.code(), Some(2), "{settings} {variables:?} {preset}");
        let error = stderr(&output);
        says(&error, words);
        assert_eq!(error.trim().lines().count(), 1, "{error}");
    }
    // Help is there all the same.
    assert!(with(folder.path(), "steps = [", &[], &["plan", "--help"]).status.success());
}
