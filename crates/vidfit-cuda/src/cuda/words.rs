//! The driver's errors in words: what they are called, and what to do.

use super::sys::Code;

/// The oldest CUDA whose drivers can compile PTX 8.0, which NVRTC 12.0 writes (`kernels/make_ptx.py`).
pub(super) const OLDEST_CUDA: (u32, u32) = (12, 0);

/// The first drivers of that CUDA: its release notes, table 3.
pub(super) const OLDEST_DRIVER: &str =
    "the oldest driver that vidfit works with is 525.60.13 on Linux and 527.41 on Windows";

/// The first compute capability of tensor cores that multiply f16 by `mma.m16n8k8`.
pub(super) const OLDEST_CAPABILITY: (u32, u32) = (7, 5);

/// `CUDA_SUCCESS`.
pub(super) const SUCCESS: Code = 0;
/// `CUDA_ERROR_NOT_READY`.
pub(super) const NOT_READY: Code = 600;

/// What a call came to; `doing` says what it was to do.
pub(super) fn check(doing: &str, result: Code) -> Result<(), String> {
    match result {
        SUCCESS => Ok(()),
        failed => Err(in_words(doing, failed)),
    }
}

fn in_words(doing: &str, failed: Code) -> String {
    match KNOWN.iter().find(|(code, ..)| *code == failed) {
        Some((_, name, "")) => format!("{doing}: CUDA_ERROR_{name}"),
        Some((_, name, advice)) => format!("{doing}: CUDA_ERROR_{name}: {advice}"),
        None => format!("{doing}: CUDA error {failed}"),
    }
}

const TOO_OLD: &str = "the driver is too old for the kernels; the oldest driver that vidfit works with is \
                       525.60.13 on Linux and 527.41 on Windows";
const BUG: &str = "this is a bug in vidfit; please report it";
const HARDWARE: &str = "the card's hardware fails";
const LOST: &str = "the card may have been lost; `nvidia-smi` and the system's log say more";

/// The errors that a call may well come to: their numbers and names (`cuda.h`), and what to do, where there
/// is something to do.
const KNOWN: [(Code, &str, &str); 36] = [
    (1, "INVALID_VALUE", BUG),
    (
        2,
        "OUT_OF_MEMORY",
        "the card has not so much memory free; end what else uses it, or allow less with \
         --vram-budget",
    ),
    (3, "NOT_INITIALIZED", ""),
    (4, "DEINITIALIZED", ""),
    (
        34,
        "STUB_LIBRARY",
        "what was loaded is the toolkit's stub, not the driver's library; take its folder out of \
         LD_LIBRARY_PATH",
    ),
    (
        46,
        "DEVICE_UNAVAILABLE",
        "another program has the card for itself alone (nvidia-smi says the compute mode)",
    ),
    (
        100,
        "NO_DEVICE",
        "the driver sees no card; is it built in, does CUDA_VISIBLE_DEVICES hide it, or was the \
         container started without it (--gpus all)?",
    ),
    (101, "INVALID_DEVICE", "there is no card of this number"),
    (200, "INVALID_IMAGE", BUG),
    (201, "INVALID_CONTEXT", ""),
    (209, "NO_BINARY_FOR_GPU", TOO_OLD),
    (214, "ECC_UNCORRECTABLE", HARDWARE),
    (218, "INVALID_PTX", BUG),
    (220, "NVLINK_UNCORRECTABLE", HARDWARE),
    (
        221,
        "JIT_COMPILER_NOT_FOUND",
        "the driver's compiler (libnvidia-ptxjitcompiler) is missing; install the whole driver, in \
         containers with the capability `compute`",
    ),
    (222, "UNSUPPORTED_PTX_VERSION", TOO_OLD),
    (223, "JIT_COMPILATION_DISABLED", "compilation is switched off; unset CUDA_DISABLE_PTX_JIT"),
    (304, "OPERATING_SYSTEM", ""),
    (400, "INVALID_HANDLE", BUG),
    (500, "NOT_FOUND", ""),
    (NOT_READY, "NOT_READY", ""),
    (700, "ILLEGAL_ADDRESS", BUG),
    (701, "LAUNCH_OUT_OF_RESOURCES", BUG),
    (702, "LAUNCH_TIMEOUT", "the system ends what takes long on a card that also shows a desktop"),
    (710, "ASSERT", BUG),
    (714, "HARDWARE_STACK_ERROR", HARDWARE),
    (715, "ILLEGAL_INSTRUCTION", BUG),
    (716, "MISALIGNED_ADDRESS", BUG),
    (717, "INVALID_ADDRESS_SPACE", BUG),
    (718, "INVALID_PC", BUG),
    (719, "LAUNCH_FAILED", LOST),
    (801, "NOT_SUPPORTED", ""),
    (
        802,
        "SYSTEM_NOT_READY",
        "the card is not ready; on machines with NVSwitch the fabric manager must run",
    ),
    (
        803,
        "SYSTEM_DRIVER_MISMATCH",
        "the driver's library and its kernel module are of different versions; restart the machine \
         after an update of the driver, or start the container anew",
    ),
    (
        804,
        "COMPAT_NOT_SUPPORTED_ON_DEVICE",
        "a compatibility library (cuda-compat) is in the way of the driver's own",
    ),
    (999, "UNKNOWN", LOST),
];

/// A version as people write it.
pub(super) fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(check("x", SUCCESS), Ok(()));
        let what = check("loading the kernels", 222).unwrap_err();
        assert!(what.starts_with("loading the kernels: CUDA_ERROR_UNSUPPORTED_PTX_VERSION: "));
        assert!(what.contains("525.60.13") && what.contains(OLDEST_DRIVER), "{what}");
        assert_eq!(check("x", 304).unwrap_err(), "x: CUDA_ERROR_OPERATING_SYSTEM");
        // Of a newer driver.
        assert_eq!(check("x", 9999).unwrap_err(), "x: CUDA error 9999");
        assert!(KNOWN.is_sorted_by_key(|(code, ..)| *code));
    }
}
