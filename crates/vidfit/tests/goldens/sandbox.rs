//! A folder with everything that cases name, in which nothing of the user's and little of the machine's
//! is to be seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// The variants of which there are tiny checkpoints: `tiny-2b` and so on, as `2b` is a published model.
const VARIANTS: [&str; 5] = ["2b", "5b", "5b-i2v", "1.5", "1.5-i2v"];

/// When all files of checkpoints and LoRAs were written, in seconds since 1970: a run knows them by
/// their times.
const WRITTEN: Duration = Duration::from_secs(1_700_000_000);

/// The folder.
pub struct Sandbox {
    /// Its path, without links.
    pub root: PathBuf,
    _folder: TempDir,
}

impl Sandbox {
    /// Makes one with the tiny checkpoints, their LoRAs, some pictures, and the files of `files/`.
    pub fn new() -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let sandbox = Sandbox { root, _folder: folder };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/fixtures");
        for variant in VARIANTS {
            let from = fixtures.join("checkpoints").join(variant);
            copy(&from, &sandbox.path(&format!("tiny-{variant}")));
        }
        copy(&fixtures.join("loras"), &sandbox.path("loras"));
        for picture in ["rgb.png", "rgba.png", "photo.jpg", "lossy.webp"] {
            let from = fixtures.join("pictures/samples").join(picture);
            fs::copy(from, sandbox.path(picture)).unwrap();
        }
        copy(&here().join("files"), &sandbox.path("files"));
        for name in ["home", "empty", "out"] {
            fs::create_dir(sandbox.path(name)).unwrap();
        }
        sandbox
    }

    /// What is called `name` in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The program in it. Of the environment it sees nothing but what is set here: no cards, no
    /// settings, no calibration, no models, no ffmpeg, no network.
    pub fn command<Word: AsRef<str>>(&self, words: &[Word]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vidfit"));
        command.args(words.iter().map(AsRef::as_ref)).current_dir(&self.root).env_clear();
        let folders = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"];
        for (variable, name) in folders.iter().zip(["config", "data", "state", "running"]) {
            command.env(variable, self.path(name));
        }
        command.env("HOME", self.path("home")).env("HF_HOME", self.path("hub"));
        command.env("HF_HUB_OFFLINE", "1").env("PATH", self.path("empty"));
        command.env("CUDA_VISIBLE_DEVICES", "").stdin(Stdio::null());
        command
    }

    /// The text with this folder called `{here}`.
    pub fn hide(&self, text: &str) -> String {
        text.replace(self.root.to_str().unwrap(), "{here}")
    }
}

/// The folder of this test in the repository.
pub fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// Copies a folder, links as what they lead to, as if all of it had been written at one time.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let new = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &new);
            continue;
        }
        fs::copy(&path, &new).unwrap();
        let file = fs::File::options().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + WRITTEN).unwrap();
    }
}
