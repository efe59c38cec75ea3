//! Where the driver keeps the kernels that it has compiled, and whether it can.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// What the kernels take once they are compiled is 2.1 MB at most (by `ptxas` for all cards there are); the
/// driver keeps nothing that is larger than its cache.
const KERNELS_BYTES: u64 = 4 << 20;

/// The driver's cache of compiled kernels, as its environment has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCache {
    /// The folder, if there is one for it.
    pub folder: Option<PathBuf>,
    /// Why the kernels do not stay there, so that they are compiled anew at every start; with what to do.
    pub problem: Option<String>,
}

impl KernelCache {
    /// Looks where the cache of this process is, and tries whether its folder can be written to.
    pub fn find() -> KernelCache {
        KernelCache::of(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn of(variable: &dyn Fn(&str) -> Option<OsString>) -> KernelCache {
        let folder = folder(variable);
        let is_off = variable("CUDA_CACHE_DISABLE").is_some_and(|value| value != "0");
        let most_bytes = variable("CUDA_CACHE_MAXSIZE")
            .and_then(|value| value.to_str()?.trim().parse::<u64>().ok());
        let problem = if is_off {
            Some("its cache is off (CUDA_CACHE_DISABLE is set; unset it)".to_owned())
        } else if let Some(bytes) = most_bytes.filter(|bytes| *bytes < KERNELS_BYTES) {
            Some(format!(
                "CUDA_CACHE_MAXSIZE={bytes} is too small a cache for them (it takes up to \
                 {KERNELS_BYTES}; without it there is more than enough)"
            ))
        } else {
            match &folder {
                Some(folder) => try_to_write(folder).err().map(|error| {
                    format!(
                        "its cache {} cannot be written to ({error}); set CUDA_CACHE_PATH to a \
                         folder that can",
                        folder.display()
                    )
                }),
                None => Some(format!(
                    "there is no folder for its cache ({HOME} is not set); set CUDA_CACHE_PATH to one"
                )),
            }
        };
        KernelCache { folder, problem }
    }
}

/// What names the folder that the driver's default is in.
const HOME: &str = if cfg!(windows) { "APPDATA" } else { "HOME" };

fn folder(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let below = if cfg!(windows) { "NVIDIA/ComputeCache" } else { ".nv/ComputeCache" };
    let by_default = || Some(Path::new(&variable(HOME)?).join(below));
    variable("CUDA_CACHE_PATH").map(PathBuf::from).or_else(by_default)
}

/// Makes a file in a folder, or in the nearest above it that there is, where the driver would have to make
/// the others; and takes it away.
fn try_to_write(folder: &Path) -> Result<(), Error> {
    let here = Path::new(".");
    let nearest = folder
        .ancestors()
        .map(|above| if above.as_os_str().is_empty() { here } else { above })
        .find(|above| above.exists())
        .ok_or(ErrorKind::NotFound)?;
    let probe = nearest.join(format!(".vidfit-{}", std::process::id()));
    File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &Path)]) -> KernelCache {
        KernelCache::of(&|wanted| {
            let set = variables.iter().find(|(name, _)| *name == wanted);
            set.map(|(_, value)| value.as_os_str().to_owned())
        })
    }

    #[test]
    fn it_is_in_the_users_folder_or_where_it_is_wanted() {
        let home = tempfile::tempdir().unwrap();
        let by_default = found(&[(HOME, home.path())]);
        let folder = by_default.folder.unwrap();
        assert!(folder.starts_with(home.path()) && folder.ends_with("ComputeCache"), "{folder:?}");
        assert_eq!(by_default.problem, None);
        let wanted = home.path().join("not/yet/there");
        let named = found(&[(HOME, Path::new("/nowhere")), ("CUDA_CACHE_PATH", &wanted)]);
        assert_eq!(named, KernelCache { folder: Some(wanted), problem: None });
        // Nothing is left of the attempt.
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_keeps_the_driver_from_using_it_is_said() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let with = |name, value: &str| found(&[(HOME, home.path()), (name, Path::new(value))]);
        let problem = |found: KernelCache| found.problem.unwrap_or_default();
        assert!(problem(with("CUDA_CACHE_DISABLE", "1")).contains("CUDA_CACHE_DISABLE is set"));
        assert_eq!(problem(with("CUDA_CACHE_DISABLE", "0")), "");
        assert!(problem(with("CUDA_CACHE_MAXSIZE", "1048576")).contains("too small"));
        assert_eq!(problem(with("CUDA_CACHE_MAXSIZE", "268435456")), "");
        assert!(problem(found(&[])).contains("is not set"));
        assert_eq!(found(&[]).folder, None);
        // Not even root makes a folder in a file.
        let what = problem(found(&[("CUDA_CACHE_PATH", &file.join("cache"))]));
        assert!(what.contains("cannot be written to"), "{what}");
    }
}
