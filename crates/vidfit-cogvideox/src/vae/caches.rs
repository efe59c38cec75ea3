//! What causal convolutions remember from one chunk to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use vidfit_tensor::{Context, DType, Error, HostBuffer, HostSource, Shape, Tensor};

/// The two padded frames before the current one.
#[derive(Clone)]
pub(super) struct Window {
    pub earlier: Tensor,
    pub previous: Tensor,
}

/// The last two padded input frames of each causal convolution. They stay on the device, or wait in
/// host memory until the next chunk comes to their convolution.
pub(super) struct Caches {
    /// Convolutions seen in this chunk.
    seen: usize,
    /// Those from this number on, in the order of their work, wait in host memory.
    paged_from: usize,
    /// Whether no chunk follows: nothing needs to be remembered.
    is_last: bool,
    windows: BTreeMap<String, Window>,
    paged: BTreeMap<String, Paged>,
}

struct Paged {
    frames: [Arc<HostBuffer>; 2],
    dtype: DType,
    shape: Shape,
}

impl Caches {
    /// Empty caches, for `convolutions` of which the last `paged` wait in host memory.
    pub fn new(convolutions: usize, paged: usize) -> Caches {
        Caches {
            seen: 0,
            paged_from: convolutions.saturating_sub(paged),
            is_last: false,
            windows: BTreeMap::new(),
            paged: BTreeMap::new(),
        }
    }

    /// A chunk begins; `is_last` if none follows.
    pub fn begin_chunk(&mut self, is_last: bool) {
        self.seen = 0;
        self.is_last = is_last;
    }

    /// What the convolution `name` remembers, if anything.
    pub fn take(&mut self, cx: &Context<'_>, name: &str) -> Result<Option<Window>, Error> {
        let Some(paged) = self.paged.get(name) else { return Ok(self.windows.remove(name)) };
        let bring = |frame: &Arc<HostBuffer>| -> Result<Tensor, Error> {
            let tensor = cx.alloc("cached frame", paged.dtype, paged.shape)?;
            cx.copy_in(&(frame.clone() as Arc<dyn HostSource>), &tensor)?;
            Ok(tensor)
        };
        let [earlier, previous] = &paged.frames;
        Ok(Some(Window { earlier: bring(earlier)?, previous: bring(previous)? }))
    }

    /// Remembers `window` for the convolution `name`, if there is a next chunk.
    pub fn put(&mut self, cx: &Context<'_>, name: &str, window: Window) -> Result<(), Error> {
        let number = self.seen;
        self.seen += 1;
        if self.is_last {
            self.paged.remove(name);
            return Ok(());
        }
        if number < self.paged_from {
            self.windows.insert(name.to_owned(), window);
            return Ok(());
        }
        if !self.paged.contains_key(name) {
            let buffer =
                |frame: &Tensor| cx.arena.host_buffer("cached frame", frame.bytes()).map(Arc::new);
            let frames = [buffer(&window.earlier)?, buffer(&window.previous)?];
            let (dtype, shape) = (window.previous.dtype(), window.previous.shape());
            self.paged.insert(name.to_owned(), Paged { frames, dtype, shape });
        }
        let [earlier, previous] = &self.paged[name].frames;
        cx.copy_out(&window.earlier, earlier)?;
        cx.copy_out(&window.previous, previous)
    }
}
