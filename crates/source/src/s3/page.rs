//! One page of `ListObjectsV2`. Pure: bytes in, keys out; everything in them is hostile.

use percent_encoding::percent_decode;

use super::time::iso;
use super::xml::walk;
use crate::Timestamp;

/// A page as the store wrote it, keys decoded and otherwise unchecked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectPage {
    /// Objects, in the store's order.
    pub objects: Vec<ListedObject>,
    /// What the keys between delimiters have in common, slash included, in the store's order.
    pub prefixes: Vec<Vec<u8>>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedObject {
    /// Its whole key.
    pub key: Vec<u8>,
    /// Bytes in it.
    pub length: Option<u64>,
    /// ETag, quotes included.
    pub etag: Option<String>,
    /// When it was written.
    pub modified: Option<Timestamp>,
}

/// Reads a page; the reason when it is none.
pub fn parse_object_page(page: &[u8]) -> Result<ObjectPage, String> {
    let mut found = ObjectPage::default();
    let mut object = ListedObject::default();
    let (mut is_listing, mut encoded, mut truncated) = (false, false, false);
    walk(page, |names, text| {
        match names {
            ["ListBucketResult"] => is_listing = true,
            ["ListBucketResult", "Contents"] => found.objects.push(std::mem::take(&mut object)),
            ["ListBucketResult", "Contents", "Key"] => object.key = text.as_bytes().to_vec(),
            ["ListBucketResult", "Contents", "Size"] => object.length = Some(number(text)?),
            ["ListBucketResult", "Contents", "ETag"] => object.etag = tag(text),
            ["ListBucketResult", "Contents", "LastModified"] => object.modified = iso(text),
            ["ListBucketResult", "CommonPrefixes", "Prefix"] => {
                found.prefixes.push(text.as_bytes().to_vec());
            }
            ["ListBucketResult", "EncodingType"] => encoded = text == "url",
            ["ListBucketResult", "IsTruncated"] => truncated = text == "true",
            ["ListBucketResult", "NextContinuationToken"] => found.next = Some(text.to_owned()),
            _ => {}
        }
        Ok(())
    })?;
    if !is_listing {
        return Err("its answer is no listing".to_owned());
    }
    if encoded {
        found.objects.iter_mut().for_each(|object| object.key = decoded(&object.key));
        found.prefixes.iter_mut().for_each(|prefix| *prefix = decoded(prefix));
    }
    match (truncated, &found.next) {
        (true, None) => Err("its listing goes on but does not say where".to_owned()),
        (true, Some(_)) => Ok(found),
        (false, _) => Ok(ObjectPage { next: None, ..found }),
    }
}

/// As in a form: a plus is a space.
fn decoded(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

fn number(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| "its listing has a size that is no number".to_owned())
}

/// Some stores leave the quotes out that every answer to a request has.
fn tag(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.trim_matches('"');
    let sound =
        !bare.is_empty() && bare.len() <= 256 && bare.bytes().all(|b| (0x21..0x7f).contains(&b));
    let quoted = text.starts_with('"') || text.starts_with("W/");
    sound.then(|| if quoted { text.to_owned() } else { format!("\"{text}\"") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
        <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
        <NextContinuationToken>a&amp;b=</NextContinuationToken>
        <Contents><Key>d/a+b%2Bc%0A%FF</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified>
        <ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><Size>434234</Size>
        <Owner><Key>not this</Key></Owner></Contents>
        <CommonPrefixes><Prefix>d/x%2F/</Prefix></CommonPrefixes></ListBucketResult>"#;

    #[test]
    fn a_page_is_read() {
        let page = parse_object_page(PAGE.as_bytes()).unwrap();
        let object = ListedObject {
            key: b"d/a b+c\n\xff".to_vec(),
            length: Some(434_234),
            etag: Some("\"fba9dede5f27731c9771645a39863328\"".to_owned()),
            modified: Some(Timestamp { seconds: 1_255_369_830, nanos: 0 }),
        };
        assert_eq!(page.objects, [object]);
        assert_eq!(page.prefixes, [b"d/x//".to_vec()]);
        assert_eq!(page.next.as_deref(), Some("a&b="));
    }

    #[test]
    fn what_is_no_page_says_so() {
        for bad in [
            PAGE.replace("434234", "-1"),
            PAGE.replace("434234", "99999999999999999999"),
            PAGE.replace("</ListBucketResult>", ""),
            PAGE.replace("NextContinuationToken", "Other"),
            PAGE.replace("a&amp;b", "a&bomb;b"),
            "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><ListBucketResult/>".to_owned(),
            "<Error><Code>AccessDenied</Code></Error>".to_owned(),
            String::new(),
            "<a>".repeat(100_000),
        ] {
            assert!(parse_object_page(bad.as_bytes()).is_err(), "{:.200}", bad);
        }
        let mut broken = PAGE.as_bytes().to_vec();
        broken.push(0xff);
        assert!(parse_object_page(&broken).is_err());
    }

    proptest! {
        #[test]
        fn no_page_makes_it_panic(
            parts in proptest::collection::vec(prop_oneof![
                Just(b"<ListBucketResult>".to_vec()), Just(b"</ListBucketResult>".to_vec()),
                Just(b"<Contents>".to_vec()), Just(b"</Contents>".to_vec()), Just(b"<Key>".to_vec()),
                Just(b"</Key>".to_vec()), Just(b"<Size>".to_vec()), Just(b"</Size>".to_vec()),
                Just(b"&#x2f;".to_vec()), Just(b"&#0;".to_vec()), Just(b"<![CDATA[".to_vec()),
                Just(b"]]>".to_vec()), Just(b"%2f+".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..12),
            ], 0..40),
        ) {
            let _ = parse_object_page(&parts.concat());
        }

        #[test]
        fn any_key_survives_the_page(key in proptest::collection::vec(any::<u8>(), 1..60), length: u64) {
            let written = percent_encoding::percent_encode(&key, percent_encoding::NON_ALPHANUMERIC);
            let page = format!(
                "<ListBucketResult><Contents><Key>{written}</Key><Size>{length}</Size></Contents>\
                 <EncodingType>url</EncodingType></ListBucketResult>"
            );
            let page = parse_object_page(page.as_bytes()).unwrap();
            prop_assert_eq!(&page.objects[0].key, &key);
            prop_assert_eq!(page.objects[0].length, Some(length));
            prop_assert_eq!(page.next, None);
        }
    }
}
