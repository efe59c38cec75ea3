//! LoRAs on the command line.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::path::PathBuf;
use support::{checkpoint, json, json_file, says, small, stderr, stdout, vidfit};

fn lora(name: &str) -> PathBuf {
    checkpoint("").join("../loras").join(name)
}

#[test]
fn a_lora_is_planned_saved_and_refused_where_it_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = lora("5b-peft.safetensors");
    let path = path.to_str().unwrap();
    let with = format!("{path}:0.5");
    let peak = |flags: &[&str]| {
        let device = ["--device", "sim:64MB", "--offload", "model", "--json"];
        let plan = json(&small(folder.path(), &["plan"], &[&device, flags].concat()));
        plan["phases"][1]["resident_bytes"].as_u64().unwrap()
    };
    assert!(peak(&["--lora", &with]) > peak(&[]));
    assert_eq!(peak(&["--lora_path", &with]), peak(&["--lora", &with]));
    assert!(peak(&["--lora", &with, "--lora", &with]) > peak(&["--lora", &with]));

    let saved = small(folder.path(), &["plan"], &["--lora", &with, "--save", "plan.json"]);
    assert!(saved.status.success(), "{}", stderr(&saved));
    let request = json_file(folder.path().join("plan.json"))["run"]["request"].clone();
    assert_eq!(request["loras"][0]["scale"], 0.5);

    for (name, words) in [
        ("nowhere.safetensors", "cannot open"),
        ("index.json", "not a valid safetensors file"),
        ("case-sat.safetensors", "place for: latents"),
    ] {
        let path = lora(name);
        let flags = ["--lora", path.to_str().unwrap()];
        let output = small(folder.path(), &["plan"], &flags);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        says(&stderr(&output), &[name, words]);
    }
    // The model of another width, whose weights need not be here for it.
    let arguments = ["plan", "--model", "5b", "--gpu", "RTX 3070", "--lora", path];
    let output = vidfit(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    says(&stderr(&output), &["for a model of width 128; this one has 3072 (CogVideoX-5b and 1.5)"]);
}

#[test]
fn a_lora_that_does_not_say_its_alpha_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = lora("5b-plain.safetensors");
    let flags = [
        "A panda",
        "--lora",
        path.to_str().unwrap(),
        "--height",
        "16",
        "--width",
        "16",
        "--no-keep",
    ];
    let output = small(folder.path(), &["generate"], &flags);
    assert!(output.status.success(), "{}", stderr(&output));
    says(&stderr(&output), &["5b-plain.safetensors", "does not say its alpha", ":0.5"]);
}

/// None of a published model is among the fixtures, and their files are of this shape.
#[test]
fn inspect_says_what_a_lora_is() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = ["to_q", "to_v"].map(|layer| {
        let of = |factor: &str| {
            format!("transformer.transformer_blocks.3.attn1.{layer}.lora_{factor}.weight")
        };
        [(of("A"), [2, 1920]), (of("B"), [1920, 2])]
    });
    let (mut header, mut begin) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors.into_iter().flatten() {
        let end = begin + 2 * 1920 * 2;
        let about = serde_json::json!({
            "dtype": "BF16", "shape": shape, "data_offsets": [begin, end]
        });
        header.insert(name, about);
        begin = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + begin, 0);
    std::fs::write(folder.path().join("style.safetensors"), bytes).unwrap();

    let output = vidfit(folder.path(), &["inspect", "style.safetensors"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    says(&text, &["diffusers/PEFT", "CogVideoX-2b", "attn1.to_q (1), attn1.to_v (1)", "2 (2)"]);
    assert!(!text.contains("5b"), "{text}");
    let report = json(&vidfit(folder.path(), &["inspect", "style.safetensors", "--json"]));
    assert_eq!(report["says_alpha"], false);
    let path = lora("5b-peft.safetensors");
    let output = vidfit(folder.path(), &["inspect", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["no LoRA of a published model", "width 128"]);
}
