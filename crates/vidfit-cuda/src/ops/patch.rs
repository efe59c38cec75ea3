//! Latents to patches and back: `kernels/patch.cu`.

use crate::device::Session;
use crate::memory::View;
use vidfit_tensor::Tensor;

const THREADS: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PatchArguments {
    latent: View,
    patches: View,
    elements: u32,
    channels: u32,
    height: u32,
    width: u32,
    patch_frames: u32,
    patch: u32,
    features: u32,
    first: u32,
    all: u32,
    unused: u32,
}

/// One launch for each latent, which has its own columns of the rows.
pub(crate) fn patchify(
    session: &Session<'_>,
    latents: &[&Tensor],
    patch: (usize, usize),
    dst: &mut Tensor,
) {
    let mut first = 0;
    for latent in latents {
        let alike = |n: usize| latent.dims()[n] == latents[0].dims()[n];
        assert!(alike(0) && alike(2) && alike(3), "latents of different sizes");
        first += launch(session, "patchify", latent, first, patch, dst);
    }
    assert_eq!(first, dst.columns(), "columns of patches");
}

/// The inverse for one latent.
pub(crate) fn unpatchify(
    session: &Session<'_>,
    src: &Tensor,
    patch: (usize, usize),
    dst: &mut Tensor,
) {
    let features = launch(session, "unpatchify", dst, 0, patch, src);
    assert_eq!(features, src.columns(), "columns of patches");
}

/// Runs a kernel for a latent and its columns, from `first` on. Returns how many columns these are.
fn launch(
    session: &Session<'_>,
    kernel: &'static str,
    latent: &Tensor,
    first: usize,
    (patch_frames, patch): (usize, usize),
    patches: &Tensor,
) -> usize {
    let &[frames, channels, height, width] = latent.dims() else { panic!("latents of {latent:?}") };
    let counts = [frames / patch_frames, height / patch, width / patch];
    assert_eq!(
        [counts[0] * patch_frames, counts[1] * patch, counts[2] * patch],
        [frames, height, width]
    );
    assert_eq!(patches.rows(), counts.iter().product::<usize>(), "rows of patches");
    let features = channels * patch_frames * patch * patch;
    assert!(first + features <= patches.columns(), "columns of patches");
    let elements = latent.shape().elements();
    // The kernels count in 32 bits, and the last block may reach beyond the last element.
    assert!(elements < 1 << 31, "{latent:?} has too many elements");
    let arguments = PatchArguments {
        latent: session.view(latent),
        patches: session.view(patches),
        elements: elements as u32,
        channels: channels as u32,
        height: height as u32,
        width: width as u32,
        patch_frames: patch_frames as u32,
        patch: patch as u32,
        features: features as u32,
        first: first as u32,
        all: patches.columns() as u32,
        unused: 0,
    };
    let grid = [arguments.elements.div_ceil(THREADS), 1, 1];
    session.launch(kernel, grid, [THREADS, 1, 1], 0, &arguments, &[latent, patches]);
    features
}
