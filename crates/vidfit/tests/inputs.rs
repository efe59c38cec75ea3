//! Images and videos on the command line: what they become, and what is said of those that will not
//! do.
#![allow(clippy::unwrap_used)] // A test may panic.

mod support;

use std::path::Path;
use std::process::Output;
use support::{checkpoint, files, json, says, stderr, vidfit};

/// `generate` of a small video with a tiny model.
fn generate(folder: &Path, model: &str, size: [&str; 3], more: &[&str]) -> Output {
    let model = checkpoint(model);
    let [frames, height, width] = size;
    let mut arguments = vec!["generate", "A panda", "--model", model.to_str().unwrap()];
    arguments.extend(["--height", height, "--width", width, "--steps", "3", "--threads", "2"]);
    if !frames.is_empty() {
        arguments.extend(["--frames", frames]);
    }
    arguments.extend(["--no-keep", "--runs", "runs"]);
    arguments.extend(more);
    vidfit(folder, &arguments)
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    stderr(output)
}

/// Frames of text alone, to start from: a folder of 17.
fn clip(folder: &Path) {
    succeeds(&generate(folder, "5b", ["17", "48", "64"], &["-o", "clip/"]));
    assert_eq!(files(&folder.join("clip")).len(), 17);
}

#[test]
fn videos_are_made_of_an_image_and_of_a_video() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    clip(folder);
    let image = "clip/frame_00000.png";
    let said = succeeds(&generate(
        folder,
        "5b-i2v",
        ["9", "48", "64"],
        &["--image", image, "-o", "image/", "--save-tensors", "image.safetensors"],
    ));
    says(&said, &["encode"]);
    assert_eq!(files(&folder.join("image")).len(), 9);

    // As many frames as there are, at most as many as are asked for, of those that the model takes.
    let video = ["--video", "clip", "--strength", "0.7"];
    let with = |more: &[&'static str]| [&video[..], more].concat();
    succeeds(&generate(folder, "5b", ["", "32", "48"], &with(&["-o", "own/"])));
    assert_eq!(files(&folder.join("own")).len(), 9, "the tiny 5b's own length");
    let said = succeeds(&generate(folder, "5b", ["33", "32", "48"], &with(&["-o", "most/"])));
    says(&said, &["17 frames are made, not 33"]);
    assert_eq!(files(&folder.join("most")).len(), 17);
    let said = succeeds(&generate(folder, "1.5", ["", "32", "48"], &with(&["-o", "even/"])));
    says(&said, &["13 frames become 16"]);
    assert_eq!(files(&folder.join("even")).len(), 16);

    // What becomes of another proportion makes another video.
    let same = |resize: &'static str, to: &'static str| {
        let more = with(&["--resize", resize, "-o", to]);
        succeeds(&generate(folder, "5b", ["9", "32", "32"], &more));
        std::fs::read(folder.join(to).join("frame_00000.png")).unwrap()
    };
    let [stretched, cropped, padded] =
        [("stretch", "s/"), ("crop", "c/"), ("pad", "p/")].map(|(how, to)| same(how, to));
    assert!(stretched != cropped && cropped != padded && padded != stretched);
    assert!(stretched == same("stretch", "again/"));

    // A video never takes the place of what it starts from.
    let more = ["--video", "clip", "-o", "clip/"];
    let output = generate(folder, "5b", ["9", "32", "32"], &more);
    assert_eq!(output.status.code(), Some(2));
    says(&stderr(&output), &["clip/ cannot be both", "the video to start from"]);
    assert_eq!(files(&folder.join("clip")).len(), 17);

    // The spellings of the reference's demo.
    let named = ["--generate_type", "v2v", "--image_or_video_path", "clip", "-o", "named/"];
    let more = [&named[..], &["--strength", "0.7"]].concat();
    succeeds(&generate(folder, "5b", ["9", "32", "32"], &more));
    assert!(stretched == std::fs::read(folder.join("named/frame_00000.png")).unwrap());
}

#[test]
fn what_cannot_be_started_from_is_one_clear_error() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    clip(folder);
    std::fs::write(folder.join("text.mp4"), "no video at all").unwrap();
    std::fs::write(folder.join("text.png"), "no image at all").unwrap();
    let whole = std::fs::read(folder.join("clip/frame_00000.png")).unwrap();
    std::fs::create_dir(folder.join("short")).unwrap();
    for frame in 0..8 {
        std::fs::write(folder.join(format!("short/{frame}.png")), &whole).unwrap();
    }
    std::fs::write(folder.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    let image = "clip/frame_00000.png";
    let small = ["9", "48", "64"];
    for (model, size, more, word) in [
        ("5b", small, &["--image", image][..], "zai-org/CogVideoX-5b-I2V"),
        ("1.5", small, &["--image", image], "zai-org/CogVideoX1.5-5B-I2V"),
        ("5b-i2v", small, &[], "--model zai-org/CogVideoX-5b"),
        ("5b-i2v", small, &["--video", "clip"], "--model zai-org/CogVideoX-5b"),
        ("5b-i2v", small, &["--image", image, "--video", "clip"], "not from both"),
        ("5b-i2v", ["9", "64", "64"], &["--image", image], "64×48 pixels alone"),
        ("5b-i2v", small, &["--image", "nothing.png"], "nothing.png"),
        ("5b-i2v", small, &["--image", "text.png"], "text.png"),
        ("5b-i2v", small, &["--image", "cut.png"], "cut.png"),
        ("5b-i2v", small, &["--image", "clip"], "folder"),
        ("5b", small, &["--video", image], "frame_00000.png"),
        ("5b", small, &["--video", "text.mp4"], "text.mp4"),
        ("5b", small, &["--video", "nothing"], "nothing"),
        ("5b", small, &["--video", "clip", "--strength", "0"], "strength 0"),
        ("1.5", ["17", "48", "64"], &["--video", "clip"], "13 or 21"),
        ("5b", small, &["--video", "clip", "--strength", "1.5"], "strength 1.5"),
        ("5b", small, &["--video", "short", "--fps", "30"], "1 frame"),
        ("5b-i2v", small, &["--image_or_video_path", image], "--generate_type i2v or v2v"),
        ("5b-i2v", small, &["--generate_type", "i2v"], "--image FILE"),
        ("5b-i2v", small, &["--generate_type", "v2v", "--image", image], "--video FILE"),
        ("5b", small, &["--generate_type", "t2v", "--image_or_video_path", image], "text alone"),
    ] {
        let more = [more, &["-o", "v/"]].concat();
        let output = generate(folder, model, size, &more);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{model} {more:?}: {message}");
        says(&message, &[word]);
        assert!(!folder.join("v").exists(), "{more:?}");
    }
}

#[test]
fn a_plan_takes_an_image_for_granted_and_says_what_encoding_takes() {
    let temporary = tempfile::tempdir().unwrap();
    let plan = |more: &[&str]| {
        let arguments = [&["plan", "--gpu", "RTX 3060 12GB", "--json"], more].concat();
        json(&vidfit(temporary.path(), &arguments))
    };
    let phases = |plan: &serde_json::Value| -> Vec<String> {
        let phases = plan["phases"].as_array().unwrap();
        phases.iter().map(|phase| phase["name"].as_str().unwrap().to_owned()).collect()
    };
    let of_image = plan(&["--model", "5b-i2v"]);
    assert_eq!(phases(&of_image), ["text", "encode", "denoise", "decode"]);
    assert_eq!(phases(&plan(&["--model", "5b"])), ["text", "denoise", "decode"]);
    let of_video = plan(&["--model", "5b", "--video", "clip.mp4", "--frames", "25"]);
    assert_eq!(phases(&of_video), ["text", "encode", "denoise", "decode"]);
    assert_eq!(
        (&of_video["video"]["frames"], &of_video["video"]["steps"]),
        (&25.into(), &40.into())
    );
}
