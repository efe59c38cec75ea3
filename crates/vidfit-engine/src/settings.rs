//! The user's standing choices: a file in TOML, and environment variables, which go before it.

use crate::folders::Folders;
use crate::presets::{Preset, built_in, canonical};
use crate::small_file::read_small;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use toml::{Spanned, Value};

/// What can be set, and what it is. A key in the file is a variable `VIDFIT_KEY` in the environment.
pub const KEYS: [(&str, &str); 32] = [
    ("model", "the model, where none is named"),
    ("t2v_model", "the model for text to video; goes before `model`"),
    ("i2v_model", "the model for image to video"),
    ("v2v_model", "the model for video to video"),
    ("preset", "the preset, where none is named"),
    ("negative_prompt", "what videos do not show"),
    ("steps", "denoising steps"),
    ("guidance", "how strongly the prompt is followed"),
    ("dynamic_cfg", "off, reference or smooth"),
    ("timestep_rule", "reference or clean"),
    ("scheduler", "auto, ddim or dpm"),
    ("seed", "seed of the noise"),
    ("strength", "how far a video to start from is changed"),
    ("resize", "stretch, crop or pad"),
    ("fps", "frames per second"),
    ("crf", "quality of an MP4, 0 to 51"),
    ("dtype", "auto, f32, f16 or bf16"),
    ("device", "auto, cpu, cuda:0, sim:8GB"),
    ("threads", "threads of the CPU; 0 is one for each core"),
    ("vram_budget", "device memory that may be taken"),
    ("vram_buffer", "memory of cards to leave to others"),
    ("ram", "RAM that may be taken"),
    ("offload", "auto, none, model, sequential, or a share such as 40%"),
    ("vae_tiling", "auto, on or off"),
    ("tile_height", "height of a tile of the decoder, in pixels"),
    ("tile_width", "width of a tile of the decoder, in pixels"),
    ("fallback_model", "the model to take if a job does not fit"),
    ("runs", "the folder of runs"),
    ("keep", "whether finished runs are kept: true or false"),
    ("progress", "auto, bar, json or none"),
    ("warm_pipelines", "pipelines whose weights stay on the device between jobs"),
    ("idle_unload_seconds", "after how long without a job they go"),
];

/// The user's choices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Of the [`KEYS`], those that are set.
    values: BTreeMap<&'static str, Setting>,
    /// All presets: those of the program, and the user's, which take their place.
    pub presets: BTreeMap<String, Preset>,
}

/// A choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// As it would be written on the command line.
    pub value: String,
    /// Where it was made.
    pub source: Source,
}

/// Where a choice was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the environment.
    Environment {
        /// The variable.
        variable: String,
    },
}

impl Source {
    /// What counts more is greater.
    fn rank(&self) -> u8 {
        match self {
            Source::File { .. } => 0,
            Source::Environment { .. } => 1,
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Source::Environment { variable } => f.write_str(variable),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {source}{}", path.display(),
        if *named { ". VIDFIT_CONFIG names this file; unset it to do without" } else { "" })]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
        /// Whether `VIDFIT_CONFIG` names it.
        named: bool,
    },
    /// The file does not say what settings can say.
    #[error("{}, line {line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A choice is none of those that there are.
    #[error("{source_name}: {key} = {value:?} cannot be: {message}")]
    Value {
        /// Where it was made.
        source_name: String,
        /// The key.
        key: String,
        /// The choice.
        value: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Settings {
    /// The user's settings. Without a file they are those of the environment, unless
    /// `VIDFIT_CONFIG` names one.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn load() -> Result<Settings, SettingsError> {
        let variable = |name: &str| std::env::var(name).ok();
        Settings::load_from(&Folders::from_env(), &variable)
    }

    /// As [`load`](Self::load), with the file that `folders` names, and variables looked up by
    /// `variable`.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn load_from(
        folders: &Folders,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Settings, SettingsError> {
        let Folders { config_file: path, config_is_named: named, .. } = folders;
        let mut settings = match read_small(path) {
            Ok(text) => Settings::parse(&text, path)?,
            Err(error) if error.kind() == ErrorKind::NotFound && !named => {
                Settings::parse("", path)?
            }
            Err(source) => {
                let (path, named) = (path.clone(), *named);
                return Err(SettingsError::Unreadable { path, source, named });
            }
        };
        for (key, _) in KEYS {
            let name = format!("VIDFIT_{}", key.to_uppercase());
            if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
                let source = Source::Environment { variable: name };
                settings.values.insert(key, Setting { value, source });
            }
        }
        Ok(settings)
    }

    /// The settings in a text. `path` is where it was read.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`].
    pub fn parse(text: &str, path: &Path) -> Result<Settings, SettingsError> {
        let invalid = |offset: usize, message: String| {
            let line = line_of(text, offset);
            SettingsError::Invalid { path: path.to_owned(), line, message }
        };
        let of_toml = |error: toml::de::Error| {
            invalid(error.span().map_or(0, |span| span.start), error.message().to_owned())
        };
        let said: BTreeMap<String, Spanned<Value>> = toml::from_str(text).map_err(of_toml)?;
        let OwnPresets { presets: own } = toml::from_str(text).map_err(of_toml)?;
        let mut values = BTreeMap::new();
        for (key, value) in said.into_iter().filter(|(key, _)| key != "presets") {
            let at = value.span().start;
            let Some(&(key, _)) = KEYS.iter().find(|(known, _)| *known == key) else {
                return Err(invalid(at, unknown(&key)));
            };
            let Some(value) = in_words(value.into_inner()) else {
                let message = format!("{key} is one word, number or list of words");
                return Err(invalid(at, message));
            };
            let value = if key == "runs" { from_file(&value, path) } else { value };
            let source = Source::File { path: path.to_owned(), line: line_of(text, at) };
            values.insert(key, Setting { value, source });
        }
        let mut presets = built_in();
        presets.extend(own.into_iter().map(|(name, preset)| (canonical(&name), preset)));
        Ok(Settings { values, presets })
    }

    /// What is set of one of the [`KEYS`].
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)
    }

    /// Whether `key` is set where `other` is, or where that counts more.
    pub fn goes_before(&self, key: &str, other: &str) -> bool {
        let rank = |key: &str| self.get(key).map(|setting| setting.source.rank());
        rank(key) >= rank(other) && self.get(key).is_some()
    }

    /// What is set of one of the [`KEYS`], read as a `T`.
    ///
    /// # Errors
    /// [`SettingsError::Value`] if it is none.
    pub fn read<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        key: &str,
    ) -> Result<Option<T>, SettingsError> {
        let Some(setting) = self.get(key) else { return Ok(None) };
        let wrong = |message: String| setting.is_wrong(key, message);
        setting.value.parse().map(Some).map_err(|error: T::Err| wrong(error.to_string()))
    }
}

impl Setting {
    /// The error that this choice for `key` cannot be.
    pub fn is_wrong(&self, key: &str, message: String) -> SettingsError {
        let (source_name, value) = (self.source.to_string(), self.value.clone());
        SettingsError::Value { source_name, key: key.to_owned(), value, message }
    }
}

/// What the file says beside [`KEYS`].
#[derive(Deserialize)]
struct OwnPresets {
    #[serde(default)]
    presets: BTreeMap<String, Preset>,
}

/// The line, from 1, of a byte of a text.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

/// A value as it would be written on the command line.
fn in_words(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(choice) => Some(choice.to_string()),
        Value::Array(values) => {
            let words: Option<Vec<String>> = values.into_iter().map(in_words).collect();
            Some(words?.join(","))
        }
        _ => None,
    }
}

/// A folder that is named in the file at `path`: `~` is the user's, and what does not begin at the
/// root lies beside the file.
fn from_file(folder: &str, path: &Path) -> String {
    let home = std::env::home_dir();
    let folder = match (folder.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => path.parent().unwrap_or(Path::new("")).join(folder),
    };
    folder.to_string_lossy().into_owned()
}

fn unknown(key: &str) -> String {
    let distance = |known: &&str| strsim::damerau_levenshtein(known, key);
    let known = KEYS.iter().map(|(known, _)| *known);
    let nearest = known.min_by_key(distance).filter(|known| distance(known) <= 3);
    let guess = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
    format!("nothing is called `{key}`{guess} (`vidfit config` lists what can be set)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::ByteSize;
    use vidfit_cogvideox::guidance::GuidanceCurve;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("a/config.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_kept_as_they_would_be_typed() {
        let text = "vram_buffer = \"2GB\"\n\nsteps = 30\nguidance = 5.5\nkeep = false\n";
        let settings = parse(text).unwrap();
        let line = |key| match &settings.get(key).unwrap().source {
            Source::File { line, .. } => *line,
            Source::Environment { .. } => 0,
        };
        assert_eq!(settings.read("vram_buffer").unwrap(), Some(ByteSize(2 << 30)));
        assert_eq!(settings.get("guidance").unwrap().value, "5.5");
        assert_eq!(settings.read("keep").unwrap(), Some(false));
        assert_eq!((line("vram_buffer"), line("steps"), line("keep")), (1, 3, 5));
        let runs = |text: &str| parse(text).unwrap().get("runs").unwrap().value.clone();
        assert_eq!(runs("runs = \"mine\""), "a/mine");
        assert_eq!(runs("runs = \"/mine\""), "/mine");
        assert!(!runs("runs = \"~/mine\"").contains('~'));
        assert_eq!(settings.read::<usize>("seed").unwrap(), None);
    }

    /// Texts with the line and the words that their error names.
    #[test]
    fn errors_name_the_file_the_line_and_the_remedy() {
        for (text, line, words) in [
            ("vram_bufer = \"2GB\"", 1, &["vram_bufer", "`vram_buffer`", "vidfit config"][..]),
            ("steps = 3\n# more\n[gpu]\nname = 1\n", 3, &["gpu"]),
            ("steps = 1\nsteps = 2", 2, &["duplicate"]),
            ("steps = \"2", 1, &[""]),
            ("\nsteps = { a = 1 }", 2, &["steps", "one word"]),
            ("[presets.mine]\nsteps = 3\nstep = 3\n", 3, &["step", "guidance"]),
            ("[presets.mine]\nsteps = true\n", 2, &["true"]),
            ("presets = 3", 1, &["map"]),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("a/config.toml, line {line}: ")), "{text}: {error}");
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
        let error = parse("\nvram_buffer = \"2G\"").unwrap().read::<ByteSize>("vram_buffer");
        let error = error.unwrap_err().to_string();
        for word in ["a/config.toml, line 2", "vram_buffer", "\"2G\"", "8GB, 7.5GB or 512MB"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn presets_of_the_user_take_the_place_of_ours() {
        let settings =
            parse("[presets.Fast]\nsteps = 8\n[presets.slow]\nguidance = 9.0\n").unwrap();
        assert_eq!(settings.presets.len(), 6);
        assert_eq!(settings.presets["fast"].steps, Some(8));
        assert_eq!(settings.presets["fast"].dynamic_cfg, None);
        assert_eq!(settings.presets["slow"].guidance, Some(9.0));
        let balanced = &settings.presets["balanced"];
        assert_eq!((balanced.steps, balanced.guidance), (Some(50), Some(6.0)));
        assert_eq!(balanced.dynamic_cfg, Some(GuidanceCurve::Smooth));
        assert_eq!(canonical(" High-Motion"), "high_motion");
    }

    #[test]
    fn the_environment_goes_before_the_file_and_only_a_named_file_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let mut folders = Folders::from_variables(&|_| None, None);
        folders.config_file = file.clone();
        let none = |_: &str| None;
        assert_eq!(Settings::load_from(&folders, &none).unwrap(), parse("").unwrap());
        folders.config_is_named = true;
        let error = Settings::load_from(&folders, &none).unwrap_err().to_string();
        assert!(error.contains("config.toml") && error.contains("VIDFIT_CONFIG"), "{error}");

        std::fs::write(&file, "steps = 20\nseed = 7").unwrap();
        let variable = |name: &str| match name {
            "VIDFIT_STEPS" => Some("40".to_owned()),
            "VIDFIT_SEED" => Some(String::new()),
            _ => None,
        };
        let settings = Settings::load_from(&folders, &variable).unwrap();
        assert_eq!(settings.read("steps").unwrap(), Some(40));
        assert_eq!(settings.get("steps").unwrap().source.to_string(), "VIDFIT_STEPS");
        assert_eq!(settings.read("seed").unwrap(), Some(7));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(Settings::load_from(&folders, &none).is_err(), "not UTF-8");
    }

    #[test]
    fn keys_are_known_once() {
        let keys: std::collections::BTreeSet<_> = KEYS.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), KEYS.len());
    }
}
