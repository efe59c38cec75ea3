//! The model that is built in: used where none is named, and the same as the files it was built from.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::Value;
use std::path::Path;
use support::{checkpoint, command, files, json, json_file, says, stderr, stdout, vidfit};
use vidfit_engine::safetensors::SafetensorsFile;

const PROMPT: &str = "a red ball moving right";
const NOTICE: &str = "no --model given: using the built-in demo model (64×64, 17 frames";

/// Runs the program, which must succeed.
fn succeeds(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = vidfit(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

/// Runs it for an answer in JSON.
fn asks(folder: &Path, arguments: &[&str]) -> Value {
    json(&vidfit(folder, arguments))
}

/// Width and height of a PNG, as its header has them.
fn png_size(path: &Path) -> [u32; 2] {
    let bytes = std::fs::read(path).unwrap();
    [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn a_prompt_alone_makes_a_video_with_the_model_that_is_built_in() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["--steps", "2", "--threads", "2", "--runs", "runs"];
    let words = [&["generate", PROMPT, "-o", "ball/", "--report", "r.json"], &small[..]].concat();
    let (_, said) = succeeds(folder.path(), &words);
    assert_eq!(said.matches(NOTICE).count(), 1, "{said}");
    says(&said, &["demo: 17 frames of 64×64 at 8 per second"]);
    let frames = files(&folder.path().join("ball"));
    assert_eq!(frames.len(), 17);
    assert_eq!(png_size(&folder.path().join("ball").join(&frames[16])), [64, 64]);
    let report = json_file(folder.path().join("r.json"));
    assert_eq!(report["plan"]["model"], "demo");
    assert!(report["measured_peak_bytes"].is_u64(), "{report}");
    assert_eq!(report["plan"]["peak_bytes"], report["measured_peak_bytes"]);
    let listed = asks(folder.path(), &["runs", "--runs", "runs", "--json"]);
    assert_eq!(listed[0]["request"]["model"], "demo");
    // Nothing was unpacked anywhere.
    assert_eq!(files(folder.path()), ["ball", "r.json", "runs"]);

    // A video to start from is as good; an image is not.
    let again = [&["generate", PROMPT, "--video", "ball", "-o", "again.gif"], &small[..]].concat();
    let (_, said) = succeeds(folder.path(), &again);
    says(&said, &[NOTICE, "demo: 17 frames"]);
    let image = vidfit(folder.path(), &["generate", PROMPT, "--image", "ball/frame_00000.png"]);
    assert_eq!(image.status.code(), Some(2));
    let message = stderr(&image);
    says(&message, &["demo does not start from an image", "--model zai-org/CogVideoX-5b-I2V"]);
}

/// From the program and from the files, on a device that reads weights where they lie and on one that
/// they are brought to: the same bits.
#[test]
fn it_is_what_it_was_built_from() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    let make = |name: &str, model: &str, device: &[&str]| {
        let to = folder.path().join(name).to_str().unwrap().to_owned();
        let job = ["generate", PROMPT, "--model", model, "--steps", "2", "--guidance-scale", "4"];
        let out =
            ["--save-tensors", &to, "-o", "v.gif", "--threads", "2", "--no-keep", "--dtype", "f32"];
        let (_, said) = succeeds(folder.path(), &[&job[..], &out, device].concat());
        assert!(!said.contains(NOTICE), "it was named: {said}");
        let file = SafetensorsFile::open(&to).unwrap();
        ["input_ids", "prompt_embeds", "latents", "frames"]
            .map(|tensor| file.bytes(tensor).unwrap().to_vec())
    };
    let built_in = make("a", "demo", &[]);
    assert!(built_in[2].iter().any(|&byte| byte != 0));
    assert!(built_in == make("b", disk.to_str().unwrap(), &[]), "the files make another video");
    let streamed = ["--device", "sim:2GB", "--offload", "sequential"];
    assert!(built_in == make("c", "demo", &streamed), "a card makes another video");
}

#[test]
fn commands_without_a_model_speak_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let plan = vidfit(folder.path(), &["plan", "--json", "--gpu", "RTX 3070"]);
    says(&stderr(&plan), &[NOTICE]);
    let plan = json(&plan);
    assert_eq!(plan["model"], "demo");
    let video = &plan["video"];
    assert_eq!([&video["frames"], &video["width"], &video["height"]], [17, 64, 64]);
    let check = asks(folder.path(), &["check", "--json"]);
    assert_eq!((&check["enough"], &check["plan"]["model"]), (&true.into(), &"demo".into()));
    // It was made for no more frames than its own.
    let most = asks(folder.path(), &["frames", "--json"]);
    assert_eq!(most["frames"], 17);
    let config = asks(folder.path(), &["config", "--json"]);
    assert_eq!(config["values"]["model"]["value"], "demo");
    assert_eq!(config["values"]["guidance"]["value"], "2.5");
}

/// What suits it is planned with, unless somebody says otherwise.
#[test]
fn it_is_guided_as_suits_it() {
    let folder = tempfile::tempdir().unwrap();
    let guidance = |words: &[&str], guidance_setting: Option<&str>| {
        let words = [&["plan", "x", "--save", "p.json"], words].concat();
        let mut command = command(folder.path(), &words);
        command.envs(guidance_setting.map(|value| ("VIDFIT_GUIDANCE", value)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        let plan = json_file(folder.path().join("p.json"));
        plan["run"]["request"]["guidance"].as_f64().unwrap()
    };
    assert_eq!(guidance(&[], None), 2.5);
    assert_eq!(guidance(&["--model", "demo"], None), 2.5);
    assert_eq!(guidance(&["--guidance", "4"], None), 4.0);
    assert_eq!(guidance(&[], Some("5")), 5.0);
    assert_eq!(guidance(&["--preset", "quality"], None), 7.0);
    let other = checkpoint("2b");
    assert_eq!(guidance(&["--model", other.to_str().unwrap()], None), 6.0);
}

/// A processor reads its weights where they lie, and keeps no copy: they are aligned for that.
#[test]
fn its_weights_are_used_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    let peak = |model: &str| {
        let words = ["plan", "x", "--json", "--device", "cpu", "--dtype", "f32", "--model", model];
        asks(folder.path(), &words)["peak_bytes"].as_u64().unwrap()
    };
    assert_eq!(peak("demo"), peak(disk.to_str().unwrap()));
}

/// What does not fit is not answered with models that take a thousand times as much.
#[test]
fn no_published_model_is_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let output = vidfit(folder.path(), &["plan", "--device", "sim:100KB", "--fit"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(!message.contains("CogVideoX"), "{message}");
}

#[test]
fn a_model_that_is_named_goes_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("config.toml");
    std::fs::write(&settings, format!("model = {:?}\nsteps = 7", checkpoint("2b"))).unwrap();
    let plan = |more: &[&str]| {
        let mut command = command(folder.path(), &[&["plan", "x", "--json"], more].concat());
        let output = command.env("VIDFIT_CONFIG", &settings).output().unwrap();
        assert!(!stderr(&output).contains(NOTICE), "{}", stderr(&output));
        let plan = json(&output);
        (plan["model"].clone(), plan["video"]["steps"].clone())
    };
    assert_eq!(plan(&[]), ("CogVideoX-2b".into(), 7.into()));
    assert_eq!(plan(&["--model", "demo"]), ("demo".into(), 7.into()));
    assert_eq!(plan(&["--model", "demo", "--steps", "9"]), ("demo".into(), 9.into()));
}

/// Also where there is a folder of that name.
#[test]
fn it_can_be_inspected_and_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("demo")).unwrap();
    for arguments in [&["inspect", "--model", "demo", "--json"][..], &["inspect", "demo", "--json"]]
    {
        let report = asks(folder.path(), arguments);
        assert_eq!((&report["complete"], &report["built_in"]), (&true.into(), &true.into()));
        assert!(report["components"]["transformer"]["parameters"].as_u64().unwrap() > 10_000);
    }
    says(
        &succeeds(folder.path(), &["inspect", "demo"]).0,
        &["demo (like CogVideoX-5b), built into"],
    );
    let missing = vidfit(folder.path(), &["inspect", "./demo"]);
    assert_eq!(missing.status.code(), Some(2));
    says(&stderr(&missing), &["model_index.json"]);
    assert_eq!(vidfit(folder.path(), &["inspect"]).status.code(), Some(2));
    says(&succeeds(folder.path(), &["models", "list"]).0, &["demo", "built in"]);
    let listed = asks(folder.path(), &["models", "list", "--json"]);
    assert_eq!((&listed[0]["id"], &listed[0]["built_in"]), (&"demo".into(), &true.into()));
    assert_eq!(
        (&listed[0]["class"], &listed[0]["dir"]),
        (&"CogVideoXPipeline".into(), &Value::Null)
    );
}

/// Many prompts are told once, and weights may stay on the device between them.
#[test]
fn many_prompts_are_made_with_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prompts"), "a red ball\na blue square\n").unwrap();
    let words = ["generate", "--prompts", "prompts", "--steps", "1", "-o", "v.gif", "--no-keep"];
    let device = ["--device", "sim:1GB", "--threads", "2"];
    let mut command = command(folder.path(), &[&words[..], &device].concat());
    let output = command.env("VIDFIT_WARM_PIPELINES", "1").output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(NOTICE).count(), 1, "{said}");
    says(&said, &["2 videos of demo"]);
    assert_eq!(files(folder.path()), ["prompts", "v-1.gif", "v-2.gif"]);
}
