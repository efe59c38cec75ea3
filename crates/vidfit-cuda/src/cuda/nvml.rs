//! What NVML knows: how much of a card's memory is free before this process has a context on it.

use super::sys;
use super::words::SUCCESS;
use nvml_wrapper::Nvml;

/// The library that the driver brings.
const LIBRARY: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };

/// Bytes that are free on the card, if NVML tells.
pub(super) fn free_bytes(device: sys::CUdevice) -> Option<u64> {
    let nvml = Nvml::builder().lib_path(LIBRARY.as_ref()).init().ok()?;
    let digits = uuid(device)?;
    // NVML numbers cards in its own way, but knows them by the same names; and parts of cards.
    let device = ["GPU", "MIG"]
        .into_iter()
        .find_map(|kind| nvml.device_by_uuid(format!("{kind}-{digits}")).ok())?;
    Some(device.memory_info().ok()?.free)
}

/// The card's name in the whole world.
fn uuid(device: sys::CUdevice) -> Option<String> {
    let mut uuid = [0; 16];
    // SAFETY: writes the 16 bytes.
    let asked = unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, device) };
    (asked == SUCCESS).then(|| dashed(uuid))
}

/// As 8-4-4-4-12 digits.
fn dashed(bytes: [u8; 16]) -> String {
    let mut text = String::new();
    for (n, byte) in bytes.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_written_as_nvidia_smi_does() {
        let text =
            super::dashed(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef");
        assert_eq!(text, "01234567-89ab-cdef-0123-456789abcdef");
    }
}
