//! cuBLASLt's library: loaded when the program runs, if it is there; and what of it is used.
//!
//! Names and numbers are those of `cublasLt.h`, `cublas_api.h` and `library_types.h`, which are the same
//! from CUDA 11.4 to 13.

use crate::cuda::library::path_of;
use std::error::Error;
use std::ffi::{OsStr, OsString, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};

/// Names the library's file, or says `off`.
pub(super) const VARIABLE: &str = "VIDFIT_CUBLASLT";

/// What the library is called, the newest first. An old driver can refuse the first and take the next.
const NAMES: [&str; 2] = if cfg!(windows) {
    ["cublasLt64_13.dll", "cublasLt64_12.dll"]
} else {
    ["libcublasLt.so.13", "libcublasLt.so.12"]
};

/// Where NVIDIA's packages for Python have it.
const IN_PACKAGE: &str = if cfg!(windows) {
    r"nvidia\cublas\bin\cublasLt64_12.dll (or nvidia\cu13\bin\x86_64\cublasLt64_13.dll)"
} else {
    "nvidia/cublas/lib/libcublasLt.so.12 (or nvidia/cu13/lib/libcublasLt.so.13)"
};

/// The first version of CUDA 12, whose drivers vidfit needs anyway.
const OLDEST: (u32, u32, u32) = (12, 0, 0);

/// `cublasStatus_t`.
pub(super) type Status = c_int;

/// `cublasLtHandle_t`, `cublasLtMatmulDesc_t`, `cublasLtMatrixLayout_t` or
/// `cublasLtMatmulPreference_t`.
pub(super) type Handle = *mut c_void;

/// `cublasLtMatmulAlgo_t`: a kernel and how it is run, which may be copied and kept.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Algorithm(pub [u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub algorithm: Algorithm,
    pub workspace_bytes: usize,
    pub state: Status,
    pub waves: f32,
    pub reserved: [c_int; 4],
}

impl Choice {
    /// What stands where nothing has been written.
    pub const NONE: Choice = Choice {
        algorithm: Algorithm([0; 8]),
        workspace_bytes: 0,
        state: NOT_INITIALIZED,
        waves: 0.0,
        reserved: [0; 4],
    };
}

// cublasStatus_t
const SUCCESS: Status = 0;
const NOT_INITIALIZED: Status = 1;
// cudaDataType_t
pub(super) const CUDA_R_32F: c_int = 0;
pub(super) const CUDA_R_16F: c_int = 2;
pub(super) const CUDA_R_16BF: c_int = 14;
// cublasComputeType_t
pub(super) const CUBLAS_COMPUTE_32F: c_int = 68;
// cublasOperation_t
pub(super) const CUBLAS_OP_T: c_int = 1;
// cublasLtMatmulDescAttributes_t
pub(super) const MATMUL_DESC_TRANSA: c_int = 3;
pub(super) const MATMUL_DESC_EPILOGUE: c_int = 7;
pub(super) const MATMUL_DESC_BIAS_POINTER: c_int = 8;
// cublasLtEpilogue_t
pub(super) const EPILOGUE_DEFAULT: u32 = 1;
pub(super) const EPILOGUE_BIAS: u32 = 4;
pub(super) const EPILOGUE_GELU_BIAS: u32 = 36;
// cublasLtMatmulPreferenceAttributes_t
pub(super) const MATMUL_PREF_MAX_WORKSPACE_BYTES: c_int = 1;
pub(super) const MATMUL_PREF_REDUCTION_SCHEME_MASK: c_int = 3;
/// Of matrices A, B, C and D.
pub(super) const MATMUL_PREF_MIN_ALIGNMENT_BYTES: [c_int; 4] = [5, 6, 7, 8];
// cublasLtMatmulAlgoConfigAttributes_t
pub(super) const ALGO_CONFIG_SPLITK_NUM: c_int = 2;
pub(super) const ALGO_CONFIG_REDUCTION_SCHEME: c_int = 3;
// cublasLtReductionScheme_t
pub(super) const REDUCTION_SCHEME_NONE: u32 = 0;

macro_rules! functions {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// The library's functions.
        #[derive(Clone, Copy)]
        #[allow(non_snake_case, reason = "as the header has them")]
        pub(super) struct Functions {
            $(pub $name: unsafe extern "system" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// Those of a library, which must stay loaded.
            fn of(library: &libloading::Library) -> Result<Functions, String> {
                Ok(Functions { $($name: {
                    // SAFETY: the header declares it like this.
                    let found = unsafe { library.get(stringify!($name)) };
                    *found.map_err(|_| concat!("it has no ", stringify!($name)))?
                },)* })
            }
        }
    };
}

functions! {
    cublasLtGetVersion() -> usize;
    cublasLtCreate(*mut Handle) -> Status;
    cublasLtDestroy(Handle) -> Status;
    cublasLtMatmulDescCreate(*mut Handle, c_int, c_int) -> Status;
    cublasLtMatmulDescDestroy(Handle) -> Status;
    cublasLtMatmulDescSetAttribute(Handle, c_int, *const c_void, usize) -> Status;
    cublasLtMatrixLayoutCreate(*mut Handle, c_int, u64, u64, i64) -> Status;
    cublasLtMatrixLayoutDestroy(Handle) -> Status;
    cublasLtMatmulPreferenceCreate(*mut Handle) -> Status;
    cublasLtMatmulPreferenceDestroy(Handle) -> Status;
    cublasLtMatmulPreferenceSetAttribute(Handle, c_int, *const c_void, usize) -> Status;
    cublasLtMatmulAlgoGetHeuristic(
        Handle, Handle, Handle, Handle, Handle, Handle, Handle, c_int, *mut Choice, *mut c_int
    ) -> Status;
    cublasLtMatmulAlgoCheck(
        Handle, Handle, Handle, Handle, Handle, Handle, *const Algorithm, *mut Choice
    ) -> Status;
    cublasLtMatmulAlgoConfigGetAttribute(
        *const Algorithm, c_int, *mut c_void, usize, *mut usize
    ) -> Status;
    cublasLtMatmul(
        Handle, Handle, *const c_void, *const c_void, Handle, *const c_void, Handle, *const c_void,
        *const c_void, Handle, *mut c_void, Handle, *const Algorithm, *mut c_void, usize, *mut c_void
    ) -> Status;
}

/// The library, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its version, such as 12.9.3.
    pub version: (u32, u32, u32),
    /// Where it lies, if the system tells.
    pub path: Option<PathBuf>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.version;
        write!(f, "cuBLASLt {major}.{minor}.{patch}")?;
        match &self.path {
            Some(path) => write!(f, " ({})", path.display()),
            None => Ok(()),
        }
    }
}

/// The library, loaded.
pub(super) struct Library {
    pub functions: Functions,
    pub found: Found,
}

impl Library {
    /// The library in a file, or of a name that the system's loader knows.
    pub fn load(name: &OsStr) -> Result<Library, String> {
        // SAFETY: loading runs the library's own beginning, which is meant for that.
        let loaded = unsafe { libloading::Library::new(name) }.map_err(|error| {
            // What the loader says is behind what the crate does, and names the file.
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        })?;
        let functions = Functions::of(&loaded).map_err(|what| {
            format!("{} is not a cuBLASLt that vidfit knows: {what}", name.display())
        })?;
        // Never unloaded: its threads and what it does at the end of the process need its code.
        std::mem::forget(loaded);
        // SAFETY: it takes nothing.
        let version = version_of(unsafe { (functions.cublasLtGetVersion)() });
        let path = file(name).or_else(|| path_of(name.to_str()?));
        let found = Found { version, path };
        if version < OLDEST {
            return Err(format!("{found} is too old; vidfit needs 12.0 or newer"));
        }
        Ok(Library { functions, found })
    }
}

/// What a library may be called here, the first to be tried first; or why none is.
pub(super) fn names() -> Result<Vec<OsString>, String> {
    match std::env::var_os(VARIABLE) {
        Some(said) if said.eq_ignore_ascii_case("off") => Err(format!("{VARIABLE} is off")),
        Some(file) if !file.is_empty() => Ok(vec![file]),
        _ => Ok(NAMES.map(OsString::from).to_vec()),
    }
}

/// Whether the user says which library it is to be.
pub(super) fn is_named() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|said| !said.is_empty())
}

/// Why there is no library, with what to do.
pub(super) fn absence(reasons: &[String]) -> String {
    format!(
        "{}; `pip install nvidia-cublas-cu12` brings one: set {VARIABLE} to the file {IN_PACKAGE} in \
         Python's site-packages",
        reasons.join("; ")
    )
}

/// A name that is a path.
fn file(name: &OsStr) -> Option<PathBuf> {
    let path = Path::new(name);
    path.parent().is_some_and(|folder| folder != Path::new("")).then(|| path.to_owned())
}

/// `CUBLAS_VERSION` in three numbers.
fn version_of(number: usize) -> (u32, u32, u32) {
    let number = u32::try_from(number).unwrap_or(0);
    (number / 10_000, number / 100 % 100, number % 100)
}

/// What a call came to; `doing` says what it was to do.
pub(super) fn check(doing: &str, status: Status) -> Result<(), String> {
    let name = match status {
        SUCCESS => return Ok(()),
        NOT_INITIALIZED => "NOT_INITIALIZED: the driver may be too old for this cuBLASLt",
        3 => "ALLOC_FAILED: there is not enough memory",
        7 => "INVALID_VALUE",
        8 => "ARCH_MISMATCH: this cuBLASLt is not for this card",
        11 => "MAPPING_ERROR",
        13 => "EXECUTION_FAILED",
        14 => "INTERNAL_ERROR",
        15 => "NOT_SUPPORTED",
        16 => "LICENSE_ERROR",
        other => return Err(format!("{doing}: status {other}")),
    };
    Err(format!("{doing}: CUBLAS_STATUS_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_those_of_the_header() {
        assert_eq!(size_of::<Algorithm>(), 64);
        assert_eq!(size_of::<Choice>(), 96);
        assert_eq!(std::mem::offset_of!(Choice, state), 72);
    }

    #[test]
    fn versions_and_failures_are_said_in_words() {
        assert_eq!(version_of(120_903), (12, 9, 3));
        assert_eq!(version_of(130_100), (13, 1, 0));
        assert!(version_of(110_402) < OLDEST && version_of(10_202) < OLDEST);
        let found = Found { version: (12, 9, 3), path: Some("/a/b.so".into()) };
        assert_eq!(found.to_string(), "cuBLASLt 12.9.3 (/a/b.so)");
        assert_eq!(check("x", 0), Ok(()));
        assert_eq!(check("x", 15).unwrap_err(), "x: CUBLAS_STATUS_NOT_SUPPORTED");
        assert_eq!(check("x", 99).unwrap_err(), "x: status 99");
    }
}
