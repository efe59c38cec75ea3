//! Products in the library's terms.
//!
//! The library counts in columns: rows of ours, one after another, are columns of its matrices. So the
//! product is `targetᵀ = weight · xᵀ`: its A is the weight, which it has to transpose; its B is x; its C
//! and D are the target; and the bias goes along the rows of D, as its epilogues want.

use super::Kind;
use super::library::*;
use crate::driver::Product;
use std::ffi::c_void;
use std::ptr::null_mut;
use vidfit_tensor::DType;

/// What the library made, until it is dropped.
pub(super) struct Made {
    pub handle: Handle,
    destroy: unsafe extern "system" fn(Handle) -> Status,
}

impl Made {
    /// What `make` writes the handle of.
    pub fn new(
        doing: &str,
        destroy: unsafe extern "system" fn(Handle) -> Status,
        make: impl FnOnce(*mut Handle) -> Status,
    ) -> Result<Made, String> {
        let mut handle = null_mut();
        check(doing, make(&mut handle))?;
        Ok(Made { handle, destroy })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: made by the library that this function is of, and used by nobody any more.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

/// A product as the library wants it described. All of it is read when it is asked for the product.
pub(super) struct Described {
    pub operation: Made,
    pub weight: Made,
    pub x: Made,
    pub target: Made,
}

impl Described {
    /// A product of this kind, of `[rows, columns, depth]`, whose bias, if it has one, lies at `bias`.
    pub fn new(
        functions: &Functions,
        kind: Kind,
        [rows, columns, depth]: [u64; 3],
        bias: u64,
    ) -> Result<Described, String> {
        let operation = Made::new(
            "describing a product",
            functions.cublasLtMatmulDescDestroy,
            // SAFETY: writes the handle. Sums and factors are f32.
            |handle| unsafe {
                (functions.cublasLtMatmulDescCreate)(handle, CUBLAS_COMPUTE_32F, CUDA_R_32F)
            },
        )?;
        set(functions, &operation, MATMUL_DESC_TRANSA, CUBLAS_OP_T)?;
        set(functions, &operation, MATMUL_DESC_EPILOGUE, kind.epilogue as u32)?;
        if kind.has_bias() {
            set(functions, &operation, MATMUL_DESC_BIAS_POINTER, bias)?;
        }
        // As many elements, one after another, so many times.
        let layout = |length: u64, count: u64| {
            let dtype = match kind.dtype {
                DType::BF16 => CUDA_R_16BF,
                _ => CUDA_R_16F,
            };
            Made::new(
                "describing a matrix",
                functions.cublasLtMatrixLayoutDestroy,
                // SAFETY: writes the handle.
                |handle| unsafe {
                    (functions.cublasLtMatrixLayoutCreate)(
                        handle,
                        dtype,
                        length,
                        count,
                        length as i64,
                    )
                },
            )
        };
        Ok(Described {
            operation,
            weight: layout(depth, columns)?,
            x: layout(depth, rows)?,
            target: layout(columns, rows)?,
        })
    }
}

fn set<T>(functions: &Functions, operation: &Made, attribute: i32, value: T) -> Result<(), String> {
    // SAFETY: reads the value, whose type is the attribute's.
    let set = unsafe {
        (functions.cublasLtMatmulDescSetAttribute)(
            operation.handle,
            attribute,
            (&raw const value).cast(),
            size_of::<T>(),
        )
    };
    check("describing a product", set)
}

/// Asks for a product on a queue.
///
/// # Safety
/// `handle` is of this library; the context that it was made in is entered, and `stream` is one of its
/// queues, or nothing.
pub(super) unsafe fn multiply(
    functions: &Functions,
    handle: Handle,
    kind: Kind,
    algorithm: &Algorithm,
    product: &Product,
    stream: *mut c_void,
) -> Result<(), String> {
    let shape = [product.rows, product.columns, product.depth];
    let described = Described::new(functions, kind, shape, product.bias.unwrap_or(0))?;
    let (one, zero) = (1.0f32, 0.0f32);
    // SAFETY: as the caller says; operands are as described, which whoever asks for the product answers
    // for; the target's old values are not read, as their factor is zero; no workspace is given.
    let asked = unsafe {
        (functions.cublasLtMatmul)(
            handle,
            described.operation.handle,
            (&raw const one).cast(),
            product.weight as *const c_void,
            described.weight.handle,
            product.x as *const c_void,
            described.x.handle,
            (&raw const zero).cast(),
            product.target as *const c_void,
            described.target.handle,
            product.target as *mut c_void,
            described.target.handle,
            algorithm,
            null_mut(),
            0,
            stream,
        )
    };
    check(
        &format!("a product of {} rows, {} columns, depth {}", shape[0], shape[1], shape[2]),
        asked,
    )
}
