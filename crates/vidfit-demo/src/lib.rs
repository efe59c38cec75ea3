//! The files of the demo model, `demo/model/` in the repository, as they are built into a program that
//! uses this crate. It has nothing else in it, so that nothing but another model makes it be built
//! again.

/// What the model is called on a command line.
pub const NAME: &str = "demo";

/// Bytes that lie as a memory map of the file would, as far as weights care: those of a file are placed
/// in multiples of their width.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// The contents of a file of the model.
macro_rules! contents {
    ($name:literal) => {{
        static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../demo/model/",
            $name
        )));
        &FILE.0
    }};
}

/// What a checkpoint is read from, by names in the diffusers layout. What other programs alone read,
/// such as the tokenizer's configuration, is left out.
pub static FILES: &[(&str, &[u8])] = &[
    ("model_index.json", contents!("model_index.json")),
    ("scheduler/scheduler_config.json", contents!("scheduler/scheduler_config.json")),
    ("text_encoder/config.json", contents!("text_encoder/config.json")),
    ("text_encoder/model.safetensors", contents!("text_encoder/model.safetensors")),
    ("tokenizer/spiece.model", contents!("tokenizer/spiece.model")),
    ("transformer/config.json", contents!("transformer/config.json")),
    (
        "transformer/diffusion_pytorch_model.safetensors",
        contents!("transformer/diffusion_pytorch_model.safetensors"),
    ),
    ("vae/config.json", contents!("vae/config.json")),
    (
        "vae/diffusion_pytorch_model.safetensors",
        contents!("vae/diffusion_pytorch_model.safetensors"),
    ),
];
