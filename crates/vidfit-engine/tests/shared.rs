//! What is the same is opened once, whatever checkpoint and path it is reached by, and nothing is
//! opened before it is used.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use support::fixtures;
use vidfit_cpu::CpuDevice;
use vidfit_engine::checkpoint::{Checkpoint, CheckpointFolder, Library, Opened};
use vidfit_engine::pipelines::{Pipelines, Task, WarmSettings};

fn checkpoint(name: &str) -> PathBuf {
    fixtures().join("checkpoints").join(name)
}

/// A copy of a checkpoint, without links.
fn copied(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        match from.is_dir() {
            true => drop(copied(&from, &to)),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
    to.to_owned()
}

/// The files of weights below a folder.
fn weights_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(weights_in(&path)),
            false if path.extension().is_some_and(|kind| kind == "safetensors") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// How often this process has mapped a file, as the system counts.
#[cfg(target_os = "linux")]
fn maps_of(path: &Path) -> usize {
    let path = path.canonicalize().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
}

fn pipelines() -> Pipelines {
    Pipelines::new(Arc::new(CpuDevice::new(1).unwrap()), WarmSettings::default())
}

fn bytes_of(paths: &[PathBuf]) -> u64 {
    paths.iter().map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn one_checkpoint_is_opened_once_for_all_its_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let text = copied(&checkpoint("5b"), &folder.path().join("5b"));
    // As published: the model for images has a transformer of its own, and the rest is the same.
    let image = folder.path().join("5b-i2v");
    copied(&checkpoint("5b-i2v"), &image);
    for component in ["text_encoder", "vae", "tokenizer", "scheduler"] {
        fs::remove_dir_all(image.join(component)).unwrap();
        fs::create_dir(image.join(component)).unwrap();
        for entry in fs::read_dir(text.join(component)).unwrap() {
            let from = entry.unwrap().path();
            fs::hard_link(&from, image.join(component).join(from.file_name().unwrap())).unwrap();
        }
    }
    let owner = pipelines();
    let first = owner.load_pipeline(&text, Task::TextToVideo).unwrap();
    let second = owner.load_shared_pipeline(&text, Task::VideoToVideo, &first).unwrap();
    let third = owner.load_shared_pipeline(&image, Task::ImageToVideo, &first).unwrap();
    assert_eq!(owner.library().opened(), Opened::default());

    let [a, b, c] = [&first, &second, &third].map(|pipeline| pipeline.checkpoint().unwrap());
    assert!(Arc::ptr_eq(&a.transformer, &b.transformer));
    assert!(!Arc::ptr_eq(&a.transformer, &c.transformer));
    for other in [&b, &c] {
        assert!(Arc::ptr_eq(&a.text_encoder, &other.text_encoder));
        assert!(Arc::ptr_eq(&a.vae, &other.vae));
        let tokenizers = (a.tokenizer.as_ref().unwrap(), other.tokenizer.as_ref().unwrap());
        assert!(Arc::ptr_eq(tokenizers.0, tokenizers.1));
    }
    let (own, mut files) = (weights_in(&image.join("transformer")), weights_in(&text));
    files.extend(own);
    let mapped_bytes = bytes_of(&files);
    let expected =
        Opened { text_encoders: 1, transformers: 2, vaes: 1, tokenizers: 1, mapped_bytes };
    assert_eq!(owner.library().opened(), expected);
    #[cfg(target_os = "linux")]
    for path in weights_in(&text).iter().chain(&weights_in(&image)) {
        let linked = !path.starts_with(image.join("transformer")) && path.starts_with(&image);
        assert_eq!(maps_of(path), usize::from(!linked), "{}", path.display());
    }

    // The last user closes.
    drop((a, b, c));
    owner.unload(first);
    assert_eq!(owner.library().opened(), expected);
    owner.unload(second);
    assert_eq!(owner.library().opened().transformers, 1);
    owner.unload(third);
    assert_eq!(owner.library().opened(), Opened::default());
    #[cfg(target_os = "linux")]
    assert!(files.iter().all(|path| maps_of(path) == 0));
}

/// Puts the files of a component into a cache of the hub's, and links in their places.
#[cfg(unix)]
fn as_in_the_hub(cache: &Path, model: &str, dir: &Path) {
    let blobs = cache.join(format!("models--{}", model.replace('/', "--"))).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    for (number, path) in files_in(dir).into_iter().enumerate() {
        // Names of the same files are the same in every model.
        let name = format!("{:064x}", number + 1);
        fs::rename(&path, blobs.join(&name)).unwrap();
        std::os::unix::fs::symlink(blobs.join(&name), &path).unwrap();
    }
}

#[cfg(unix)]
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Text encoders of two checkpoints: how many there are, both open.
fn text_encoders(one: &Path, other: &Path) -> usize {
    let library = Library::default();
    let one = CheckpointFolder::read(one).unwrap().open(&library).unwrap();
    let other = CheckpointFolder::read(other).unwrap().open(&library).unwrap();
    let opened = library.opened();
    assert_eq!(opened.transformers, 2);
    let is_same = Arc::ptr_eq(&one.text_encoder, &other.text_encoder);
    assert_eq!(opened.text_encoders, if is_same { 1 } else { 2 });
    opened.text_encoders
}

/// Two checkpoints with equal text encoders in files of their own.
fn pair(folder: &Path) -> [PathBuf; 2] {
    let pair = ["2b", "5b"].map(|name| copied(&checkpoint(name), &folder.join(name)));
    fs::remove_dir_all(pair[1].join("text_encoder")).unwrap();
    copied(&pair[0].join("text_encoder"), &pair[1].join("text_encoder"));
    pair
}

#[test]
#[cfg(unix)]
fn two_checkpoints_share_a_text_encoder_by_its_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = pair(folder.path());
    assert_eq!(text_encoders(&one, &other), 2, "equal contents tell nothing");
    // Two caches of different models, each with a copy of its own.
    let cache = folder.path().join("hub");
    as_in_the_hub(&cache, "zai-org/CogVideoX-2b", &one.join("text_encoder"));
    as_in_the_hub(&cache, "zai-org/CogVideoX-5b", &other.join("text_encoder"));
    assert_eq!(text_encoders(&one, &other), 1);
    // What a state remembers of a model does not depend on which of the two was opened.
    let alone = Checkpoint::open(&other).unwrap();
    let library = Library::default();
    let _first = CheckpointFolder::read(&one).unwrap().open(&library).unwrap();
    let second = CheckpointFolder::read(&other).unwrap().open(&library).unwrap();
    assert_eq!(second.identity(), alone.identity());

    // A blob that was cut off is another.
    let weights = files_in(&other.join("text_encoder")).pop().unwrap();
    let identity = || {
        let folder = CheckpointFolder::read(&other).unwrap();
        folder.text_encoder.identity().unwrap()
    };
    let before = identity();
    let file = fs::OpenOptions::new().write(true).open(weights).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    assert_ne!(identity(), before);
}

#[test]
fn two_checkpoints_share_a_text_encoder_by_links() {
    type Link = fn(&Path, &Path);
    let hard: Link = |from, to| fs::hard_link(from, to).unwrap();
    let links: &[Link] = &[
        hard,
        #[cfg(unix)]
        |from, to| std::os::unix::fs::symlink(from, to).unwrap(),
    ];
    for link in links {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = pair(folder.path());
        for weights in weights_in(&one.join("text_encoder")) {
            let linked = other.join("text_encoder").join(weights.file_name().unwrap());
            fs::remove_file(&linked).unwrap();
            link(&weights, &linked);
        }
        assert_eq!(text_encoders(&one, &other), 1);
        // The configuration says otherwise what the weights are for.
        let config = other.join("text_encoder/config.json");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replacen('{', "{\"_name_or_path\": \"elsewhere\",", 1)).unwrap();
        assert_eq!(text_encoders(&one, &other), 1, "where it came from is no difference");
        let with = |text: &str| text.replace("1e-06", "1e-05").replace("1e-6", "1e-5");
        assert_ne!(with(&text), text);
        fs::write(&config, with(&text)).unwrap();
        assert_eq!(text_encoders(&one, &other), 2);
    }
}

#[test]
fn what_was_written_to_is_another_component() {
    let folder = tempfile::tempdir().unwrap();
    let dir = copied(&checkpoint("5b"), &folder.path().join("5b"));
    let library = Library::default();
    let open = || CheckpointFolder::read(&dir).unwrap().open(&library).unwrap();
    let first = open();
    assert!(Arc::ptr_eq(&first.vae, &open().vae));
    let weights = &weights_in(&dir.join("vae"))[0];
    let file = fs::OpenOptions::new().write(true).open(weights).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    let second = open();
    assert!(!Arc::ptr_eq(&first.vae, &second.vae));
    assert!(Arc::ptr_eq(&first.text_encoder, &second.text_encoder));
    // Another file in its place, of the same time and size.
    let (about, other) = (weights.metadata().unwrap(), folder.path().join("other"));
    fs::copy(weights, &other).unwrap();
    let copy = fs::OpenOptions::new().write(true).open(&other).unwrap();
    copy.set_modified(about.modified().unwrap()).unwrap();
    fs::rename(other, weights).unwrap();
    #[cfg(unix)]
    assert!(!Arc::ptr_eq(&second.vae, &open().vae));
}

#[test]
fn two_threads_open_one() {
    let library = Library::default();
    let folder = CheckpointFolder::read(&checkpoint("5b")).unwrap();
    let open = || folder.open(&library).unwrap();
    let (a, b) = std::thread::scope(|scope| {
        let (a, b) = (scope.spawn(open), scope.spawn(open));
        (a.join().unwrap(), b.join().unwrap())
    });
    assert!(Arc::ptr_eq(&a.transformer, &b.transformer));
}

#[test]
fn nothing_is_opened_before_it_is_used() {
    type Damage = fn(&Path);
    let missing: Damage = |path| fs::remove_file(path).unwrap();
    let garbage: Damage = |path| fs::write(path, "garbage").unwrap();
    for (damage, component) in [
        (missing, "transformer"),
        (garbage, "transformer"),
        (garbage, "vae"),
        (garbage, "text_encoder"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dir = copied(&checkpoint("5b"), &folder.path().join("5b"));
        weights_in(&dir.join(component)).iter().for_each(|path| damage(path));
        let owner = pipelines();
        let pipeline = owner.load_pipeline(&dir, Task::TextToVideo).unwrap();
        let found = pipeline.checkpoint().map(drop).unwrap_err().to_string();
        let usual = Checkpoint::open(&dir).map(drop).unwrap_err().to_string();
        assert_eq!(found, usual);
        assert_eq!(owner.library().opened().transformers, 0);
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = copied(&checkpoint("5b"), &folder.path().join("5b"));
    fs::write(dir.join("tokenizer/spiece.model"), "garbage").unwrap();
    let pipeline = pipelines().load_pipeline(&dir, Task::TextToVideo).unwrap();
    assert!(pipeline.checkpoint().map(drop).unwrap_err().to_string().contains("tokenizer"));

    // What opens later is what is there by then.
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("5b");
    copied(&checkpoint("5b"), &dir);
    let weights = &weights_in(&dir.join("vae"))[0];
    let aside = folder.path().join("aside");
    fs::rename(weights, &aside).unwrap();
    let pipeline = pipelines().load_pipeline(&dir, Task::TextToVideo).unwrap();
    assert!(pipeline.checkpoint().is_err());
    fs::rename(&aside, weights).unwrap();
    pipeline.checkpoint().unwrap();
}

#[test]
fn a_configuration_that_is_wrong_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = copied(&checkpoint("5b"), &folder.path().join("5b"));
    fs::remove_file(dir.join("vae/config.json")).unwrap();
    let error = pipelines().load_pipeline(&dir, Task::TextToVideo).map(drop).unwrap_err();
    assert!(error.to_string().contains("the VAE"), "{error}");
}

#[test]
fn a_task_of_another_model_is_refused_and_the_right_one_named() {
    use Task::{ImageToVideo, TextToVideo, VideoToVideo};
    let owner = pipelines();
    for (model, task, right) in [
        ("2b", ImageToVideo, "CogVideoX-2b is not for image to video; CogVideoX-5b-I2V is"),
        ("5b", ImageToVideo, "CogVideoX-5b is not for image to video; CogVideoX-5b-I2V is"),
        ("5b-i2v", TextToVideo, "CogVideoX-5b-I2V is not for text to video; CogVideoX-5b is"),
        ("5b-i2v", VideoToVideo, "CogVideoX-5b-I2V is not for video to video; CogVideoX-5b is"),
        ("1.5", ImageToVideo, "CogVideoX1.5-5B is not for image to video; CogVideoX1.5-5B-I2V is"),
        ("1.5-i2v", VideoToVideo, "CogVideoX1.5-5B-I2V is not for video to video"),
    ] {
        let error = owner.load_pipeline(&checkpoint(model), task).map(drop).unwrap_err();
        assert!(error.to_string().starts_with(right), "{error}");
        assert!(error.to_string().contains("Load zai-org/CogVideoX"), "{error}");
    }
    for (model, task) in
        [("2b", TextToVideo), ("2b", VideoToVideo), ("5b-i2v", ImageToVideo), ("1.5", VideoToVideo)]
    {
        assert_eq!(owner.load_pipeline(&checkpoint(model), task).unwrap().task(), task);
    }
}

#[test]
fn a_pipeline_that_shares_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = pair(folder.path());
    let owner = pipelines();
    let base = owner.load_pipeline(&one, Task::TextToVideo).unwrap();
    let error = owner.load_shared_pipeline(&other, Task::TextToVideo, &base).map(drop);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("none of their components have the same files"), "{error}");
    let elsewhere = pipelines();
    let error = elsewhere.load_shared_pipeline(&one, Task::VideoToVideo, &base).map(drop);
    assert!(error.unwrap_err().to_string().contains("another device"));
    owner.load_shared_pipeline(&one, Task::VideoToVideo, &base).unwrap();
}
