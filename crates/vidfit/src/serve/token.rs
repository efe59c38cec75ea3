//! What clients must know.

use crate::exit::Failure;
use std::net::IpAddr;

/// The variable that it may stand in.
pub const VARIABLE: &str = "VIDFIT_TOKEN";

/// Bytes of one that is made here.
const BYTES: usize = 32;

/// A token, and whether it was made here.
#[derive(Debug, PartialEq)]
pub struct Token {
    /// It.
    pub text: String,
    /// Whether nobody knows it yet.
    pub is_new: bool,
}

/// The token that is given, or a new one where others than this machine can connect, if any is needed.
///
/// # Errors
/// Bad input if the one that is given cannot be sent; if the system gives no random numbers.
pub fn of(given: Option<&str>, address: IpAddr) -> Result<Option<Token>, Failure> {
    match given.filter(|text| !text.is_empty()) {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(Token { text: text.to_owned(), is_new: false }))
        }
        Some(_) => Err(Failure::input(
            "the token has characters that cannot be sent: take letters, digits and punctuation",
        )),
        None if address.is_loopback() => Ok(None),
        None => Ok(Some(Token { text: random()?, is_new: true })),
    }
}

/// Random bytes of the system's, in letters that need no quoting anywhere.
fn random() -> Result<String, Failure> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(Failure::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_than_this_machine_need_one() {
        let [here, everywhere] = ["127.0.0.1", "0.0.0.0"].map(|text| text.parse().unwrap());
        assert_eq!(of(None, here).unwrap(), None);
        assert_eq!(of(Some(""), here).unwrap(), None);
        let given = of(Some("se-cret"), here).unwrap().unwrap();
        assert_eq!((given.text.as_str(), given.is_new), ("se-cret", false));
        let made = || of(None, everywhere).unwrap().unwrap();
        let (one, other) = (made(), made());
        assert!(one.is_new && one.text.len() == 2 * BYTES && one != other);
        assert!(of(Some("se cret"), everywhere).is_err());
    }
}
