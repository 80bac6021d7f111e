//! What BitTorrent writes its files and answers in.

use std::collections::BTreeMap;

/// A value, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Integer(u64),
    Bytes(Vec<u8>),
    Dictionary(BTreeMap<&'static str, Value>),
}

impl Value {
    /// The bytes of a text.
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }

    /// Of these pairs, in any order.
    pub fn dictionary<const N: usize>(pairs: [(&'static str, Self); N]) -> Self {
        Self::Dictionary(pairs.into())
    }

    /// As it is written.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Integer(number) => format!("i{number}e").into_bytes(),
            Self::Bytes(bytes) => {
                let mut written = format!("{}:", bytes.len()).into_bytes();
                written.extend(bytes);
                written
            }
            Self::Dictionary(pairs) => {
                let pairs = pairs.iter();
                let pairs = pairs.flat_map(|(key, value)| [Self::text(key), value.clone()]);
                let inside = pairs.flat_map(|value| value.encode());
                [b'd'].into_iter().chain(inside).chain([b'e']).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order() {
        let inner = Value::dictionary([("b", Value::Integer(0)), ("a b", Value::text(""))]);
        let outer = Value::dictionary([("z", Value::Integer(17)), ("info", inner)]);
        assert_eq!(outer.encode(), b"d4:infod3:a b0:1:bi0ee1:zi17ee");
    }
}
