//! What the tests of the products share.

use vidfit_tensor::DType;

/// Each value must be what some number within `slack` of the expected one rounds to.
pub fn check_within(what: &str, dtype: DType, actual: &[f32], expected: &[f64], slack: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    for (n, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let slack = slack + 2e-7 * e.abs();
        let (low, high) = (dtype.round((e - slack) as f32), dtype.round((e + slack) as f32));
        assert!(low <= a && a <= high, "{what}: element {n} is {a}, not {e} as {dtype}");
    }
}
