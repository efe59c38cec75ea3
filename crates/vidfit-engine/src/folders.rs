//! Where a user's settings, records and running jobs are kept.

use std::path::{Path, PathBuf};

/// The folders of the user, as the XDG base directory specification has them, or as Windows does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The settings: `$VIDFIT_CONFIG`, else `$XDG_CONFIG_HOME/vidfit/config.toml`, else
    /// `~/.config/vidfit/config.toml`; on Windows `%APPDATA%\vidfit\config.toml`.
    pub config_file: PathBuf,
    /// Whether `VIDFIT_CONFIG` named that file, which then has to exist.
    pub config_is_named: bool,
    /// What outlives a run, such as calibrations: `$XDG_STATE_HOME/vidfit`, else
    /// `~/.local/state/vidfit`; on Windows `%LOCALAPPDATA%\vidfit`.
    pub state: PathBuf,
    /// The runs, if they are not kept elsewhere: `$XDG_DATA_HOME/vidfit/runs`, else
    /// `~/.local/share/vidfit/runs`; on Windows `%LOCALAPPDATA%\vidfit\runs`.
    pub runs: PathBuf,
    /// The server's queue and its videos, if they are not kept elsewhere: `queue` beside `runs`.
    pub queue: PathBuf,
    /// What running jobs say of themselves: `$XDG_RUNTIME_DIR/vidfit`, else `running` in `state`.
    pub running: PathBuf,
}

impl Folders {
    /// The folders that the environment asks for. A variable that is empty, or a relative path in
    /// one of the XDG variables, counts as not set.
    pub fn from_env() -> Folders {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Folders::from_variables(&variable, std::env::home_dir().as_deref())
    }

    /// As [`from_env`](Self::from_env), with the variables looked up by `variable`.
    pub fn from_variables(
        variable: &dyn Fn(&str) -> Option<PathBuf>,
        home: Option<&Path>,
    ) -> Folders {
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let home = |folder: &str| home.unwrap_or(Path::new(".")).join(folder);
        let (config, state) = match cfg!(windows) {
            true => (absolute("APPDATA"), absolute("LOCALAPPDATA")),
            false => (absolute("XDG_CONFIG_HOME"), absolute("XDG_STATE_HOME")),
        };
        let data = absolute(if cfg!(windows) { "LOCALAPPDATA" } else { "XDG_DATA_HOME" });
        let data = data.unwrap_or_else(|| home(".local/share")).join("vidfit");
        let config = config.unwrap_or_else(|| home(".config")).join("vidfit");
        let state = state.unwrap_or_else(|| home(".local/state")).join("vidfit");
        let named = variable("VIDFIT_CONFIG").filter(|path| !path.as_os_str().is_empty());
        let running = absolute("XDG_RUNTIME_DIR").map(|folder| folder.join("vidfit"));
        Folders {
            config_is_named: named.is_some(),
            config_file: named.unwrap_or_else(|| config.join("config.toml")),
            runs: data.join("runs"),
            queue: data.join("queue"),
            running: running.unwrap_or_else(|| state.join("running")),
            state,
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn folders(variables: &[(&str, &str)]) -> Folders {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        };
        Folders::from_variables(&variable, Some(Path::new("/home/ann")))
    }

    #[test]
    fn without_variables_all_is_in_the_home_folder() {
        let empty = [
            "VIDFIT_CONFIG",
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
            "XDG_RUNTIME_DIR",
            "XDG_DATA_HOME",
        ];
        for variables in [vec![], empty.map(|name| (name, "")).to_vec()] {
            let folders = folders(&variables);
            let config = Path::new("/home/ann/.config/vidfit/config.toml");
            assert_eq!(folders.config_file, config);
            assert!(!folders.config_is_named);
            assert_eq!(folders.state, Path::new("/home/ann/.local/state/vidfit"));
            assert_eq!(folders.running, Path::new("/home/ann/.local/state/vidfit/running"));
            assert_eq!(folders.runs, Path::new("/home/ann/.local/share/vidfit/runs"));
        }
    }

    #[test]
    fn variables_move_the_folders() {
        let xdg = [
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_RUNTIME_DIR", "/r"),
            ("XDG_DATA_HOME", "/d"),
        ];
        let moved = folders(&xdg);
        assert_eq!(moved.config_file, Path::new("/c/vidfit/config.toml"));
        assert_eq!(moved.state, Path::new("/s/vidfit"));
        assert_eq!(moved.running, Path::new("/r/vidfit"));
        assert_eq!(moved.runs, Path::new("/d/vidfit/runs"));
        assert_eq!(moved.queue, Path::new("/d/vidfit/queue"));
        let named = folders(&[xdg[0], ("VIDFIT_CONFIG", "mine.toml")]);
        assert_eq!(named.config_file, Path::new("mine.toml"));
        assert!(named.config_is_named);
        let relative = folders(&[("XDG_STATE_HOME", "s"), ("XDG_RUNTIME_DIR", "r")]);
        assert_eq!(relative, folders(&[]));
    }
}
