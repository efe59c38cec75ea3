//! The driver's errors in words: what they are called, and what to do.

use cudarc::driver::sys::CUresult;

/// The oldest CUDA whose drivers can compile PTX 8.0, which NVRTC 12.0 writes (`kernels/make_ptx.py`).
pub(super) const OLDEST_CUDA: (u32, u32) = (12, 0);

/// The first drivers of that CUDA: its release notes, table 3.
pub(super) const OLDEST_DRIVER: &str =
    "the oldest driver that vidfit works with is 525.60.13 on Linux and 527.41 on Windows";

/// The first compute capability of tensor cores that multiply f16 by `mma.m16n8k8`.
pub(super) const OLDEST_CAPABILITY: (u32, u32) = (7, 5);

/// What a call came to; `doing` says what it was to do.
pub(super) fn check(doing: &str, result: CUresult) -> Result<(), String> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        failed => Err(in_words(doing, failed)),
    }
}

fn in_words(doing: &str, failed: CUresult) -> String {
    match advice(failed) {
        Some(advice) => format!("{doing}: {failed:?}: {advice}"),
        None => format!("{doing}: {failed:?}"),
    }
}

fn advice(failed: CUresult) -> Option<String> {
    use CUresult as Code;
    let text = match failed {
        Code::CUDA_ERROR_OUT_OF_MEMORY => {
            "the card has not so much memory free; end what else uses it, or allow less with --vram"
        }
        Code::CUDA_ERROR_NO_DEVICE => {
            "the driver sees no card; is it built in, does CUDA_VISIBLE_DEVICES hide it, or was \
             the container started without it (--gpus all)?"
        }
        Code::CUDA_ERROR_INVALID_DEVICE => "there is no card of this number",
        Code::CUDA_ERROR_STUB_LIBRARY => {
            "what was loaded is the toolkit's stub, not the driver's library; take its folder out \
             of LD_LIBRARY_PATH"
        }
        Code::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "the driver's library and its kernel module are of different versions; restart the \
             machine after an update of the driver, or start the container anew"
        }
        Code::CUDA_ERROR_SYSTEM_NOT_READY => {
            "the card is not ready; on machines with NVSwitch the fabric manager must run"
        }
        Code::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "a compatibility library (cuda-compat) is in the way of the driver's own"
        }
        Code::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            "another program has the card for itself alone (nvidia-smi says the compute mode)"
        }
        Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | Code::CUDA_ERROR_NO_BINARY_FOR_GPU => {
            return Some(format!("the driver is too old for the kernels; {OLDEST_DRIVER}"));
        }
        Code::CUDA_ERROR_JIT_COMPILER_NOT_FOUND => {
            "the driver's compiler (libnvidia-ptxjitcompiler) is missing; install the whole \
             driver, in containers with the capability `compute`"
        }
        Code::CUDA_ERROR_JIT_COMPILATION_DISABLED => {
            "compilation is switched off; unset CUDA_DISABLE_PTX_JIT"
        }
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
        | Code::CUDA_ERROR_MISALIGNED_ADDRESS
        | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Code::CUDA_ERROR_INVALID_PC
        | Code::CUDA_ERROR_ASSERT
        | Code::CUDA_ERROR_INVALID_IMAGE
        | Code::CUDA_ERROR_INVALID_PTX => "this is a bug in vidfit; please report it",
        Code::CUDA_ERROR_LAUNCH_TIMEOUT => {
            "the system ends what takes long on a card that also shows a desktop"
        }
        Code::CUDA_ERROR_ECC_UNCORRECTABLE
        | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
        | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE => "the card's hardware fails",
        Code::CUDA_ERROR_LAUNCH_FAILED | Code::CUDA_ERROR_UNKNOWN => {
            "the card may have been lost; `nvidia-smi` and the system's log say more"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// A version as people write it.
pub(super) fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(check("x", CUresult::CUDA_SUCCESS), Ok(()));
        let what = check("loading the kernels", CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
        let what = what.unwrap_err();
        assert!(what.starts_with("loading the kernels: CUDA_ERROR_UNSUPPORTED_PTX_VERSION: "));
        assert!(what.contains("525.60.13"), "{what}");
        let what = check("x", CUresult::CUDA_ERROR_ALREADY_MAPPED).unwrap_err();
        assert_eq!(what, "x: CUDA_ERROR_ALREADY_MAPPED");
    }
}
