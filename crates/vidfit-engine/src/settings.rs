//! The user's standing choices, from a file in TOML.

use crate::bytes::ByteSize;
use crate::folders::Folders;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What the file may say. Without a file, nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Device memory to leave to others: the standing form of `--buffer`.
    pub vram_buffer: Option<ByteSize>,
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
        /// What is wrong there. For an unknown key, the known ones are in it.
        message: String,
    },
}

impl Settings {
    /// The user's settings. Without a file they are the default, unless `VIDFIT_CONFIG` names one.
    pub fn load() -> Result<Settings, SettingsError> {
        Settings::load_from(&Folders::from_env())
    }

    /// As [`load`](Self::load), with the file that `folders` names.
    pub fn load_from(folders: &Folders) -> Result<Settings, SettingsError> {
        let Folders { config_file: path, config_is_named: named, .. } = folders;
        match std::fs::read_to_string(path) {
            Ok(text) => Settings::parse(&text, path),
            Err(error) if error.kind() == ErrorKind::NotFound && !named => Ok(Settings::default()),
            Err(source) => {
                Err(SettingsError::Unreadable { path: path.clone(), source, named: *named })
            }
        }
    }

    /// The settings in a text. `path` is where it was read, for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Settings, SettingsError> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().iter().take(offset);
            SettingsError::Invalid {
                path: path.to_owned(),
                line: 1 + before.filter(|&&byte| byte == b'\n').count(),
                message: error.message().to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("a/config.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_are_read_as_on_the_command_line() {
        let expected = Settings { vram_buffer: Some(ByteSize(2 << 30)) };
        for text in ["vram_buffer = \"2GB\"", "# mine\n\nvram_buffer = 2147483648\n"] {
            assert_eq!(parse(text), Ok(expected.clone()), "{text}");
        }
        assert_eq!(parse(""), Ok(Settings::default()));
    }

    /// Texts with the line and the words that their error names.
    #[test]
    fn errors_name_the_file_the_line_and_the_remedy() {
        for (text, line, words) in [
            ("vram_bufer = \"2GB\"", 1, &["vram_bufer", "`vram_buffer`"][..]),
            ("vram_buffer = \"2GB\"\n# more\n[gpu]\nname = 1\n", 3, &["gpu", "`vram_buffer`"]),
            ("\nvram_buffer = \"2G\"", 2, &["\"2G\"", "8GB, 7.5GB or 512MB"]),
            ("\n\nvram_buffer = -1", 3, &["-1", "8GB"]),
            ("vram_buffer = true", 1, &["8GB"]),
            ("vram_buffer = \"1GB\"\nvram_buffer = \"2GB\"", 2, &["duplicate"]),
            ("vram_buffer = \"2GB", 1, &[""]),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("a/config.toml, line {line}: ")), "{text}: {error}");
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_file_that_was_named_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        let mut folders = Folders::from_variables(&|_| None, None);
        folders.config_file = file.clone();
        assert_eq!(Settings::load_from(&folders).unwrap(), Settings::default());
        folders.config_is_named = true;
        let error = Settings::load_from(&folders).unwrap_err().to_string();
        assert!(error.contains("config.toml") && error.contains("VIDFIT_CONFIG"), "{error}");
        std::fs::write(&file, "vram_buffer = \"1GB\"").unwrap();
        let settings = Settings::load_from(&folders).unwrap();
        assert_eq!(settings.vram_buffer, Some(ByteSize(1 << 30)));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(Settings::load_from(&folders).is_err(), "not UTF-8");
    }
}
