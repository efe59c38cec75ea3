//! Matrix products by NVIDIA's cuBLASLt, where it is found.
//!
//! - `library`: the library and its functions. `describe`: products in its terms.
//! - `pin`: which of its algorithms makes the products of a kind. `proof`: that it may.
//!
//! A kind is a type and what follows the sums, and has one algorithm, whatever the numbers of rows and
//! columns and the depth. Which one is asked of the library once, when the card is opened, for one shape:
//! so it depends on nothing but the library and the card. That it is one for all depths, too, lets all of
//! it be tried and loaded before a job begins, for any model, and nothing be allocated later.

mod describe;
mod library;
mod pin;
mod proof;

use crate::driver::{Driver, Product};
use describe::{Made, multiply};
use library::{Algorithm, Library, VARIABLE};
use proof::Proof;
use std::ffi::c_void;
use std::fmt;
use vidfit_tensor::{Activation, DType};

/// The library, with an algorithm for each kind of product that it makes.
pub(super) struct Blas {
    library: Library,
    handle: Made,
    pinned: Vec<(Kind, Algorithm)>,
    /// The kinds that it does not make, with why.
    left_out: Vec<(Kind, String)>,
}

// SAFETY: the library's handle may be used by all threads, at once, too.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

/// Products that one algorithm makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    /// Of x, the weight, the bias and the target.
    dtype: DType,
    epilogue: Epilogue,
}

/// What the library does to sums before it rounds them, by `cublasLtEpilogue_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Epilogue {
    Nothing = library::EPILOGUE_DEFAULT,
    Bias = library::EPILOGUE_BIAS,
    /// In its tanh form.
    BiasAndGelu = library::EPILOGUE_GELU_BIAS,
}

impl Kind {
    /// All that models have many of.
    const ALL: [Kind; 6] = {
        const fn kind(dtype: DType, epilogue: Epilogue) -> Kind {
            Kind { dtype, epilogue }
        }
        [
            kind(DType::F16, Epilogue::Nothing),
            kind(DType::F16, Epilogue::Bias),
            kind(DType::F16, Epilogue::BiasAndGelu),
            kind(DType::BF16, Epilogue::Nothing),
            kind(DType::BF16, Epilogue::Bias),
            kind(DType::BF16, Epilogue::BiasAndGelu),
        ]
    };

    fn of(product: &Product) -> Option<Kind> {
        let epilogue = match (product.bias, product.activation) {
            (None, Activation::None) => Epilogue::Nothing,
            (Some(_), Activation::None) => Epilogue::Bias,
            (Some(_), Activation::GeluTanh) => Epilogue::BiasAndGelu,
            _ => return None,
        };
        Some(Kind { dtype: product.dtype, epilogue })
    }

    fn has_bias(self) -> bool {
        self.epilogue != Epilogue::Nothing
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = match self.epilogue {
            Epilogue::Nothing => "",
            Epilogue::Bias => " with bias",
            Epilogue::BiasAndGelu => " with bias and GELU",
        };
        write!(f, "{}{with}", self.dtype)
    }
}

/// What is in the way of products by the library.
enum Obstacle {
    /// The library: without it there are vidfit's own kernels.
    Library(String),
    /// The card: nothing works.
    Card(String),
}

/// The card that the library is tried on: its context is entered.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub driver: &'a dyn Driver,
    /// The computing queue.
    pub stream: *mut c_void,
    /// How many blocks run at once, or a few times as many.
    pub multiprocessors: u32,
}

/// Looks for the library and tries it on the card; or says why vidfit's own kernels make all products.
///
/// # Errors
/// What failed of the card. That there is no memory for trying is such a failure, and nothing that the
/// own kernels are taken for: products must not change with what else uses the card. So is that the library
/// which the user names cannot be had.
pub(super) fn find(place: Place<'_>) -> Result<Result<Blas, String>, String> {
    let names = match library::names() {
        Ok(names) => names,
        Err(why) => return Ok(Err(why)),
    };
    let (mut absent, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        let library = match Library::load(&name) {
            Ok(library) => library,
            Err(why) if library::is_named() => {
                return Err(format!("{VARIABLE} names a library, but {why}"));
            }
            Err(why) => {
                absent.push(why);
                continue;
            }
        };
        let found = library.found.clone();
        match Blas::new(library, place) {
            Ok(blas) => return Ok(Ok(blas)),
            Err(Obstacle::Library(why)) => refused.push(format!("{found}: {why}")),
            Err(Obstacle::Card(what)) => {
                return Err(format!("trying {found}: {what} ({VARIABLE}=off does without it)"));
            }
        }
    }
    Ok(Err(if refused.is_empty() { library::absence(&absent) } else { refused.join("; ") }))
}

impl Blas {
    fn new(library: Library, place: Place<'_>) -> Result<Blas, Obstacle> {
        let handle = Made::new("starting it", library.functions.cublasLtDestroy, |handle| {
            // SAFETY: writes the handle; the context is entered.
            unsafe { (library.functions.cublasLtCreate)(handle) }
        });
        let handle = handle.map_err(Obstacle::Library)?;
        let mut blas = Blas { library, handle, pinned: Vec::new(), left_out: Vec::new() };
        let mut proof = Proof::new(place.driver, place.multiprocessors)?;
        for kind in Kind::ALL {
            match blas.pin(kind, &mut proof, place.stream) {
                Ok(algorithm) => blas.pinned.push((kind, algorithm)),
                Err(Obstacle::Library(why)) => blas.left_out.push((kind, why)),
                Err(card) => return Err(card),
            }
        }
        match (&blas.pinned[..], blas.left_out.pop()) {
            ([], Some((kind, why))) => Err(Obstacle::Library(format!("{kind}: {why}"))),
            (_, last) => {
                blas.left_out.extend(last);
                Ok(blas)
            }
        }
    }

    /// Asks for a product, if it is of a kind that the library makes.
    ///
    /// # Safety
    /// The context is entered that was when this was made, and `stream` is one of its queues.
    pub unsafe fn product(
        &self,
        product: &Product,
        stream: *mut c_void,
    ) -> Option<Result<(), String>> {
        let kind = Kind::of(product)?;
        let (_, algorithm) = self.pinned.iter().find(|(pinned, _)| *pinned == kind)?;
        // SAFETY: as the caller says.
        let asked = unsafe { self.multiply(kind, algorithm, product, stream) };
        // The own kernels do not take over: what of a model's products they make must not depend on the
        // number of rows or columns.
        Some(asked.map_err(|what| {
            format!("{}: {what}; set {VARIABLE}=off to do without it", self.library.found)
        }))
    }

    /// # Safety
    /// As [`multiply`].
    unsafe fn multiply(
        &self,
        kind: Kind,
        algorithm: &Algorithm,
        product: &Product,
        stream: *mut c_void,
    ) -> Result<(), String> {
        let (functions, handle) = (&self.library.functions, self.handle.handle);
        // SAFETY: as the caller says.
        unsafe { multiply(functions, handle, kind, algorithm, product, stream) }
    }
}

impl fmt::Display for Blas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.library.found)?;
        for alike in self.left_out.chunk_by(|(_, one), (_, next)| one == next) {
            let kinds: Vec<String> = alike.iter().map(|(kind, _)| kind.to_string()).collect();
            write!(f, "; vidfit's own kernels for {} ({})", kinds.join(", "), alike[0].1)?;
        }
        Ok(())
    }
}
