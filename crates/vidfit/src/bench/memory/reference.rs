//! What the reference takes: peaks of live tensors of diffusers 0.42.1 in 16 bits, measured by
//! tracing its own code; weights and workspaces of convolutions are not in them. In bytes; the
//! notes of the measurement count in units of 10⁹.

use vidfit_engine::checkpoint::Variant;

/// One denoising step, both halves of guidance, flash attention, at the published size.
pub fn step_bytes(variant: Variant) -> u64 {
    match variant {
        Variant::TwoB => 1_650_000_000,
        Variant::FiveB | Variant::FiveBI2v => 2_840_000_000,
        Variant::OneFive => 7_240_000_000,
        Variant::OneFiveI2v => 7_260_000_000,
    }
}

/// Decoding a video of the published size, whole or in tiles.
pub fn decode_bytes(variant: Variant, is_tiled: bool) -> u64 {
    match (variant.is_one_five(), is_tiled) {
        (false, false) => 15_820_000_000,
        (false, true) => 4_040_000_000,
        (true, false) => 47_830_000_000,
        (true, true) => 4_480_000_000,
    }
}
