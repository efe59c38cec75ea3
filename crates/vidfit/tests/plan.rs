//! What the commands that plan say, of tiny checkpoints and of published models without weights.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use serde_json::Value;
use support::{checkpoint, command, files, json, json_file, says, small, stderr, stdout, vidfit};

fn anywhere(arguments: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let output = vidfit(folder.path(), arguments);
    assert_eq!(files(folder.path()), [""; 0], "{arguments:?} left a file");
    output
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn bytes(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number of bytes"))
}

/// Holds a plan to the fields that programs rely on.
fn has_the_schema(plan: &Value) {
    let expected = [
        "version",
        "fits",
        "peak_bytes",
        "budget_bytes",
        "overhead_bytes",
        "ram_peak_bytes",
        "seconds",
        "placement",
        "changes_picture",
        "rejected",
        "phases",
    ];
    let found = keys(plan);
    assert!(expected.iter().all(|key| found.contains(key)), "{found:?}");
    let placement = &plan["placement"];
    assert!(placement["strategy"].is_string() && placement["slots"].is_u64(), "{placement}");
    assert!((0.0..=100.0).contains(&placement["resident_percent"].as_f64().unwrap()));
    assert!(plan["changes_picture"].as_array().unwrap().iter().all(Value::is_string));
    for rejected in plan["rejected"].as_array().unwrap() {
        let found = keys(rejected);
        let expected = ["what", "peak_bytes", "seconds", "why"];
        assert!(expected.iter().all(|key| found.contains(key)), "{found:?}");
    }
    let phases = plan["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["text", "denoise", "decode"]);
    for phase in phases {
        for key in ["peak_bytes", "uploaded_bytes", "resident_bytes", "streamed_bytes"] {
            bytes(&phase[key]);
        }
        assert!(phase["seconds"].is_f64() && phase["peak_holder"].is_string(), "{phase}");
    }
    let fullest = phases.iter().map(|phase| bytes(&phase["peak_bytes"])).max().unwrap();
    assert_eq!(fullest, bytes(&plan["peak_bytes"]));
    let total: f64 = phases.iter().map(|phase| phase["seconds"].as_f64().unwrap()).sum();
    assert!((total - plan["seconds"].as_f64().unwrap()).abs() < 1e-6 * total);
}

#[test]
fn a_published_model_is_planned_for_a_card_without_either_being_here() {
    let arguments = ["plan", "--model", "5b", "--gpu", "RTX 3070", "--json", "--explain"];
    let output = anywhere(&arguments);
    let plan = json(&output);
    has_the_schema(&plan);
    says(&stderr(&output), &["zai-org/CogVideoX-5b is not on this machine"]);
    assert_eq!(plan["model"], "CogVideoX-5b");
    assert_eq!(plan["device"], "RTX 3070");
    assert_eq!(plan["fits"], true);
    let (peak, budget) = (bytes(&plan["peak_bytes"]), bytes(&plan["budget_bytes"]));
    assert_eq!(budget, (8 << 30) - bytes(&plan["overhead_bytes"]));
    assert!(peak <= budget && peak > budget / 10 * 9, "the card is not filled: {peak} of {budget}");
    let video = &plan["video"];
    assert_eq!((&video["frames"], &video["dtype"]), (&49.into(), &"bf16".into()));
    // The plain strategies were tried, too, and their numbers say why they were not taken.
    let rejected = |what: &str| {
        let all = plan["rejected"].as_array().unwrap();
        let found = all.iter().find(|rejected| rejected["what"] == what);
        found.unwrap_or_else(|| panic!("{what} is not in {all:?}")).clone()
    };
    for what in ["--offload none", "--offload model"] {
        assert!(bytes(&rejected(what)["peak_bytes"]) > budget);
        says(rejected(what)["why"].as_str().unwrap(), &["too big", "GB may be used"]);
    }
    let sequential = rejected("--offload sequential");
    assert!(bytes(&sequential["peak_bytes"]) < peak);
    assert!(sequential["seconds"].as_f64() > plan["seconds"].as_f64());
    assert!(rejected("decode in tiles")["why"].as_str().unwrap().contains("picture"));
}

#[test]
fn a_plan_speaks_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--device", "sim:64MB", "--vram-budget", "13MB", "--buffer", "1MB", "--explain"];
    let output = small(folder.path(), &["plan"], &flags);
    assert!(output.status.success(), "{}", stderr(&output));
    says(
        &stdout(&output),
        &[
            "CogVideoX-5b fits on sim:64MB",
            "of the 13.0 MB there are",
            "17 frames of 128×96, 2 steps in bf16",
            "13.0 MB allowed of 64.0 MB free",
            "RAM  ",
            "picture   as it was asked for",
            "denoise",
            "denoise: ",
            "at its fullest, of which",
            "Not taken:",
            "--offload none",
        ],
    );
    let flags = ["--device", "sim:10MB", "--dtype", "f32"];
    let text = stdout(&small(folder.path(), &["plan"], &flags));
    says(&text, &["CHANGED: decoded in tiles of"]);
    let flags = ["--device", "cpu", "--offload", "40%"];
    let text = stdout(&small(folder.path(), &["plan"], &flags));
    says(&text, &["on the CPU", "in f32", "where they lie", "--offload 40% has no meaning"]);
}

#[test]
fn what_does_not_fit_ends_in_code_3_after_the_plan_and_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--device", "sim:11MB", "--dtype", "f32", "--vae-tiling", "off"];
    let output = small(folder.path(), &["plan"], &flags);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    says(&stdout(&output), &["does not fit on sim:11MB", "decode"]);
    let offers =
        ["needs at least 13.1 MB", "11.0 MB may be used", "--vae-tiling auto", "--height 64"];
    says(&stderr(&output), &offers);
    let output = small(folder.path(), &["plan", "--json"], &flags);
    assert_eq!(output.status.code(), Some(3));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    has_the_schema(&plan);
    assert_eq!(plan["fits"], false);
    assert!(bytes(&plan["peak_bytes"]) > bytes(&plan["budget_bytes"]));
    // Tiles, if that is allowed by name: they were forbidden.
    let order = ["--fit", "--fit-order", "tiling"];
    let fitted = json(&small(folder.path(), &["plan", "--json"], &[&flags[..], &order].concat()));
    assert_eq!(fitted["fits"], true);
    says(&fitted["changes_picture"].to_string(), &["tiles"]);
    let fitted = json(&small(folder.path(), &["plan", "--json", "--fit"], &flags));
    assert_eq!((&fitted["fits"], &fitted["video"]["tile"]), (&true.into(), &Value::Null));
    let order = ["--fit", "--fit-order", "size,frames"];
    let fitted = json(&small(folder.path(), &["plan", "--json"], &[&flags[..], &order].concat()));
    assert_eq!(fitted["video"]["height"], 64);
    says(&fitted["changes_picture"].to_string(), &["96×64 pixels"]);
}

#[test]
fn a_smaller_model_takes_the_place_of_one_that_does_not_fit() {
    let flags = ["--device", "sim:800MB", "--fallback-model", "2b", "--json"];
    let plan = json(&anywhere(&[&["plan", "--model", "1.5"][..], &flags].concat()));
    assert_eq!((&plan["model"], &plan["fits"]), (&"CogVideoX-2b".into(), &true.into()));
    says(&plan["changes_picture"][0].to_string(), &["tiles"]);
    says(&plan["changes_picture"][1].to_string(), &["CogVideoX-2b"]);
    // The frames and the type are those that the other model was made for.
    assert_eq!((&plan["video"]["frames"], &plan["video"]["dtype"]), (&49.into(), &"f16".into()));
}

/// `vram_buffer` is the standing form of `--buffer`, for cards.
#[test]
fn the_settings_leave_memory_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("config.toml");
    std::fs::write(&settings, "vram_buffer = \"24MB\"").unwrap();
    let model = checkpoint("5b");
    let budget = |flags: &[&str]| {
        let plan = ["plan", "--model", model.to_str().unwrap(), "--json"];
        let mut command = command(folder.path(), &[&plan[..], flags].concat());
        bytes(&json(&command.env("VIDFIT_CONFIG", &settings).output().unwrap())["budget_bytes"])
    };
    assert_eq!(budget(&["--device", "sim:64MB"]), 40 << 20);
    assert_eq!(budget(&["--device", "sim:64MB", "--vram-budget", "50MB"]), 40 << 20);
    assert_eq!(budget(&["--device", "sim:64MB", "--vram-budget", "30MB"]), 30 << 20);
    assert_eq!(budget(&["--device", "sim:64MB", "--buffer", "1MB"]), 63 << 20);
    assert!(budget(&["--device", "cpu", "--ram", "64MB"]) > 60 << 20);
}

#[test]
fn the_host_must_have_room_too() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--device", "sim:64MB", "--ram", "2MB"];
    let output = small(folder.path(), &["plan"], &flags);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    says(&stderr(&output), &["of RAM"]);
}

/// What `--save-tensors` keeps lies in RAM as well.
#[test]
fn kept_tensors_must_have_room_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |flags: &[&str]| {
        let flags = [&["--device", "sim:64MB", "--json"], flags].concat();
        small(folder.path(), &["plan"], &flags)
    };
    let ram_bytes = bytes(&json(&plan(&[]))["ram_peak_bytes"]);
    let enough = format!("{ram_bytes}");
    assert!(plan(&["--ram", &enough]).status.success());
    let keeps = ["--ram", &enough, "--save-tensors", "t.safetensors"];
    let output = plan(&keeps);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    says(&stderr(&output), &["of RAM"]);
    // 17 frames in f32, twice, and not much more.
    let kept_bytes = 2 * 17 * 96 * 128 * 3 * 4 + (1 << 20);
    let enough = format!("{}", ram_bytes + kept_bytes);
    let output = plan(&["--ram", &enough, "--save-tensors", "t.safetensors"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// On the CPU, the budget leaves room for the results of all the frames that may be chosen.
#[test]
fn frames_that_are_left_open_have_room_for_their_results() {
    let budget = |frames: &[&str]| {
        let flags = ["--device", "cpu", "--ram", "40GB", "--height", "96", "--width", "128"];
        let plan = ["plan", "--model", "1.5", "--vae-tiling", "off", "--json"];
        bytes(&json(&anywhere(&[&plan[..], &flags, frames].concat()))["budget_bytes"])
    };
    let (all, fit) = (budget(&["--frames", "161"]), budget(&["--frames", "fit"]));
    assert!(fit <= all && all < budget(&[]), "{fit} {all}");
}

#[test]
fn all_cards_are_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let plans = json(&small(folder.path(), &["plan"], &["--all-gpus", "--json"]));
    let plans = plans.as_array().unwrap();
    assert!(plans.len() > 100, "{}", plans.len());
    plans.iter().for_each(has_the_schema);
    let text = stdout(&small(folder.path(), &["plan"], &["--all-gpus"]));
    assert_eq!(text.lines().count(), plans.len() + 2);
    let line = text.lines().find(|line| line.starts_with("RTX 3060 12GB ")).unwrap();
    says(line, &["12.00 GB", "model", "100%"]);
    // Cards that share a schedule have times of their own.
    let seconds = |device: &str| {
        let plan = plans.iter().find(|plan| plan["device"] == device).unwrap();
        plan["seconds"].as_f64().unwrap()
    };
    assert!(seconds("RTX 3090") > seconds("RTX 4090"));
}

/// Too little RAM is a line of the table as too small a card is, and not the end of it.
#[test]
fn cards_that_ram_is_too_small_for_have_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--all-gpus", "--ram", "2MB"];
    let plans = json(&small(folder.path(), &["plan", "--json"], &flags));
    let plans = plans.as_array().unwrap();
    assert!(plans.len() > 100, "{}", plans.len());
    for plan in plans {
        has_the_schema(plan);
        assert_eq!(plan["fits"], false);
        assert!(bytes(&plan["ram_peak_bytes"]) > bytes(&plan["ram_bytes"]));
    }
    let output = small(folder.path(), &["plan"], &flags);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().filter(|line| line.contains("too little RAM")).count(), plans.len());
}

#[test]
fn check_answers_in_one_sentence_and_its_exit_code() {
    let check = |flags: &[&str]| {
        let output = small(tempfile::tempdir().unwrap().path(), &["check"], flags);
        assert_eq!(stdout(&output).lines().count(), 1, "{}", stdout(&output));
        (output.status.code(), stdout(&output))
    };
    let f32_whole = ["--dtype", "f32", "--vae-tiling", "off", "--device"];
    let (code, sentence) = check(&[&f32_whole[..], &["sim:16MB"]].concat());
    assert_eq!(code, Some(0), "{sentence}");
    says(&sentence, &["enough: 16.0 MB (16,777,216 bytes) available on sim:16MB", "required"]);
    let (code, sentence) = check(&[&f32_whole[..], &["sim:16MB", "--buffer", "3MB"]].concat());
    assert_eq!(code, Some(1), "{sentence}");
    says(&sentence, &["not enough: 13.0 MB (13,631,488 bytes) available", "required"]);
    // In tiles there would be.
    let (code, _) = check(&["--dtype", "f32", "--device", "sim:13MB"]);
    assert_eq!(code, Some(0));
    assert_eq!(anywhere(&["check", "--model", "2b", "--gpu", "RTX 3070"]).status.code(), Some(0));
    assert_eq!(anywhere(&["check", "--model", "2b", "--buffer", "2"]).status.code(), Some(0));
    assert_eq!(anywhere(&["check", "--model", "7b"]).status.code(), Some(2));
}

#[test]
fn check_answers_programs_in_json() {
    let check = |memory: &str| {
        let flags = ["--dtype", "f32", "--vae-tiling", "off", "--json", "--device", memory];
        let output = small(tempfile::tempdir().unwrap().path(), &["check"], &flags);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        has_the_schema(&answer["plan"]);
        assert_eq!(answer["required_bytes"], answer["plan"]["peak_bytes"]);
        (output.status.code(), answer)
    };
    let (code, enough) = check("sim:16MB");
    assert_eq!((code, &enough["enough"]), (Some(0), &true.into()), "{enough}");
    assert_eq!(bytes(&enough["available_bytes"]), 16 << 20);
    let (code, less) = check("sim:13MB");
    assert_eq!((code, &less["enough"]), (Some(1), &false.into()), "{less}");
    assert!(bytes(&less["required_bytes"]) > 13 << 20);
}

#[test]
fn the_most_frames_are_found() {
    let frames = |flags: &[&str]| {
        let flags = [&["--json", "--frames", "49", "--vae-tiling", "off"][..], flags].concat();
        small(tempfile::tempdir().unwrap().path(), &["frames"], &flags)
    };
    let all = json(&frames(&["--device", "sim:1GB"]));
    assert_eq!(all["frames"], 49);
    has_the_schema(&all["plan"]);
    let tight = ["--dtype", "f32", "--height", "96", "--width", "128", "--device"];
    let found = |memory: &str| {
        let found = json(&frames(&[&tight[..], &[memory]].concat()));
        assert_eq!(found["plan"]["fits"], true);
        found["frames"].as_u64().unwrap()
    };
    // More memory, never fewer frames; and just not enough for the next.
    let counts = ["sim:13500KB", "sim:14MB", "sim:16MB"].map(found);
    assert!(counts.is_sorted() && counts[0] >= 9, "{counts:?}");
    let none = frames(&[&tight[..], &["sim:9MB"]].concat());
    assert_eq!(none.status.code(), Some(3));
    says(&stderr(&none), &["at 1 frame of 128×96 needs at least"]);
    // One frame is a video, too, and the only one that some cards have room for.
    assert_eq!(found("sim:10MB"), 1);
    assert!(found("sim:10MB") < counts[0]);
    let one = ["--json", "--frames", "1", "--vae-tiling", "off"];
    let one = [&one[..], &tight, &["sim:10MB"]].concat();
    let one = small(tempfile::tempdir().unwrap().path(), &["frames"], &one);
    assert_eq!(json(&one)["frames"], 1);
}

#[test]
fn requirements_have_the_tables_of_the_guide() {
    let all = json(&anywhere(&["requirements", "--json"]));
    let models = all["models"].as_array().unwrap();
    assert_eq!(models.len(), 5);
    for row in models {
        let needs = |what: &str| bytes(&row[what]["peak_bytes"]);
        assert!(needs("nothing_on") > 4 * needs("everything_on"), "{row}");
        assert!(bytes(&row["everything_on"]["ram_bytes"]) > 0);
    }
    for row in all["composites"].as_array().unwrap() {
        assert_eq!(row["idle_bytes"], 0);
        assert!(bytes(&row["nothing_on_bytes"]) > bytes(&row["everything_on_bytes"]));
    }
}

#[test]
fn a_card_is_recommended_a_model_by_the_rule() {
    let recommend = |within: &str| {
        let arguments = ["recommend", "--gpu", "RTX 4090", "--json", "--within", within];
        json(&anywhere(&arguments))[0].clone()
    };
    let row = recommend("60");
    assert_eq!(row["gpu"], "RTX 4090");
    let cells = row["models"].as_array().unwrap();
    assert_eq!(cells.len(), 3);
    for cell in cells {
        assert_eq!(cell["all_frames"], true, "{cell}");
        assert!(bytes(&cell["peak_bytes"]) <= bytes(&cell["budget_bytes"]));
    }
    // As patience goes, so does the size of the model.
    assert_eq!(row["recommended"], "CogVideoX1.5-5B");
    let minutes = |model: usize| cells[model]["seconds"].as_f64().unwrap() / 60.0;
    let between = format!("{}", (minutes(0) + minutes(1)) / 2.0);
    assert_eq!(recommend(&between)["recommended"], "CogVideoX-5b");
}

#[test]
fn a_saved_plan_runs_exactly_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let device = ["--device", "sim:64MB"];
    let save = ["--offload", "40%", "--save", "plan.json", "--fps", "8", "--crf", "20"];
    let output = small(folder.path(), &["plan"], &[&device[..], &save].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let saved = json_file(folder.path().join("plan.json"));
    has_the_schema(&saved);
    let run = |flags: &[&str]| {
        let start = ["generate", "A panda", "--plan", "plan.json", "--threads", "2", "-o", "v/"];
        vidfit(folder.path(), &[&start[..], &["--report", "r.json"], flags].concat())
    };
    let output = run(&device);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = json_file(folder.path().join("r.json"));
    assert_eq!(report["measured_peak_bytes"], saved["peak_bytes"]);
    assert_eq!(report["plan"]["placement"]["slots"], saved["placement"]["slots"]);
    // What there is now is what is spoken of, not what there was.
    let output = run(&["--device", "sim:128MB", "--progress", "json"]);
    let announced = stdout(&output).lines().find(|line| line.contains("\"planned\"")).map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["device"].as_str().unwrap().to_owned(), bytes(&event["budget_bytes"]))
    });
    assert_eq!(announced, Some(("sim:128MB".into(), 128 << 20)), "{}", stderr(&output));
    // Nothing but the plan says what is run; and it is never planned again.
    for (flags, code, words) in [
        (&["--frames", "9"][..], 2, &["--frames", "--plan"][..]),
        (&["--vram-budget", "8MB"], 2, &["--vram-budget", "--plan"]),
        (&["--device", "cpu"], 2, &["vidfit plan --save"]),
        (&["--device", "sim:9MB"], 3, &["9.0 MB may be used on sim:9MB", "vidfit plan --save"]),
        (&["--device", "sim:64MB", "--ram", "2MB"], 3, &["of RAM"]),
    ] {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {}", stderr(&output));
        says(&stderr(&output), words);
    }
    assert_eq!(json_file(folder.path().join("r.json"))["outcome"], "refused");
    std::fs::write(folder.path().join("plan.json"), "{}").unwrap();
    assert_eq!(run(&device).status.code(), Some(2));
}

/// Arguments that end in exit code 2, with a message that has all of the words.
#[test]
fn bad_input_is_explained() {
    let here = checkpoint("5b");
    let model = here.to_str().unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["plan", "--model", "somewhere/5b"], &["somewhere/5b"]),
        (&["plan", "--model", "2b", "--gpu", "RTX 3060"], &["RTX 3060 12GB", "RTX 3060 8GB"]),
        (&["plan", "--model", "2b", "--gpu", "toaster"], &["toaster", "vidfit gpus"]),
        (&["plan", "--model", "2b", "--device", "sim:RTX 3060"], &["RTX 3060 Laptop"]),
        (&["plan", "--model", "2b", "--device", "cuda:7"], &["cuda:7"]),
        (&["plan", "--model", "2b", "--vram-budget", "8 GB"], &["8 GB", "7.5GB"]),
        (&["plan", "--model", "2b", "--ram", "much"], &["much", "512MB"]),
        (&["plan", "--model", "2b", "--offload", "140%"], &["140%", "sequential"]),
        (&["plan", "--model", "2b", "--fit-order", "colour"], &["colour", "tiling"]),
        (&["plan", "--model", "2b", "--frames", "many"], &["many", "fit"]),
        (&["plan", "--model", "2b", "--frames", "10"], &["9 or 17"]),
        (&["plan", "--model", "2b", "--gpu", "T4", "--device", "cpu"], &["--gpu", "--device"]),
        (&["plan", "--model", "2b", "--threads", "100000"], &["cores"]),
        (&["plan", "--model", model, "--all-gpus", "--frames", "fit"], &["recommend"]),
        (&["plan", "--model", "2b", "--fallback-model", "nope"], &["nope"]),
        (&["frames", "--model", "nope"], &["nope"]),
        (&["recommend", "--gpu", "RTX 9999"], &["RTX 9999"]),
        (&["recommend", "--within", "0"], &["--within"]),
        (&["generate", "x", "--model", "5b"], &["models pull zai-org/CogVideoX-5b"]),
        (&["generate", "x", "--model", model, "--device", "cuda"], &["cuda:0 cannot be used"]),
        (&["generate", "x", "--plan", "nowhere.json"], &["nowhere.json"]),
        (&["generate", "x", "--model", model, "--report", "no/r.json"], &["mkdir -p"]),
    ];
    for (arguments, words) in cases {
        let output = anywhere(arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        says(&message, words);
    }
}
