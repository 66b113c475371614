// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors, good and bad, and what reading them says.

use super::*;

fn parse(qbm: &str) -> Result<Descriptor> {
    Descriptor::parse(format!("{{\"QBM\":{qbm}}}").as_bytes())
}

fn with_bitmap(name: &str, bitmap: &str) -> String {
    format!(
        r#"{{"version":1,"image":{{"file":"d","format":"raw"}},"bitmaps":{{"{name}":{bitmap}}}}}"#
    )
}

const GOOD: &str = r#"{"file":"b","granularity-bytes":65536,"type":"dirty"}"#;

#[test]
fn a_version_1_descriptor_as_proposed() {
    for key in ["bitmaps", "BITMAPS"] {
        let text = with_bitmap("0", GOOD).replace("bitmaps", key);
        let descriptor = parse(&text).unwrap();
        assert_eq!(descriptor.image.file, "d");
        let bitmap = descriptor.bitmap("0").unwrap();
        assert_eq!(
            (bitmap.file.as_str(), bitmap.granularity.bytes()),
            ("b", 65536)
        );
        assert!(bitmap.recording);
        assert!(descriptor.to_text().unwrap().contains("\"bitmaps\": {"));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let image = r#""image":{"file":"d","format":"raw"}"#;
    for (qbm, message) in [
        ("5".into(), "QBM: a number is not an object"),
        (format!("{{{image}}}"), "QBM: member \"version\" is missing"),
        (
            format!("{{\"version\":2,{image}}}"),
            "version: 2 is not supported",
        ),
        (
            format!("{{\"version\":\"1\",{image}}}"),
            "version: \"1\" is not an integer",
        ),
        ("{\"version\":1}".into(), "QBM: member \"image\" is missing"),
        (
            r#"{"version":1,"image":{"file":"","format":"raw"}}"#.into(),
            "image.file: \"\" is not a file name",
        ),
        (
            r#"{"version":1,"image":{"file":"d","format":"json:{}"}}"#.into(),
            "image.format: \"json:{}\" is not a format name",
        ),
        (
            r#"{"version":1,"image":{"file":7,"format":"raw"}}"#.into(),
            "image.file: 7 is not a string",
        ),
        (
            r#"{"version":1,"image":{"file":"d","format":"raw","colour":1}}"#.into(),
            "image: unknown member \"colour\"",
        ),
        (
            format!("{{\"version\":1,{image},\"x\":1}}"),
            "QBM: unknown member \"x\"",
        ),
        (
            format!("{{\"version\":1,{image},\"ext-hard-x\":1}}"),
            "QBM: this version does not know the required extension \"ext-hard-x\"",
        ),
        (
            with_bitmap(
                "b",
                r#"{"file":"b","granularity-bytes":512,"type":"dirty","ext-hard-y":0}"#,
            ),
            "bitmaps.\"b\": this version does not know the required extension \"ext-hard-y\"",
        ),
        (
            with_bitmap(
                "b",
                r#"{"file":"b","granularity-bytes":512,"type":"allocation"}"#,
            ),
            "bitmaps.\"b\".type: allocation bitmaps are not supported",
        ),
        (
            with_bitmap("b", r#"{"file":"b","granularity-bytes":512,"type":"blue"}"#),
            "bitmaps.\"b\".type: \"blue\" is neither",
        ),
        (
            format!("{{\"version\":1,{image},\"bitmaps\":{{}},\"BITMAPS\":{{}}}}"),
            "QBM: both bitmaps and BITMAPS",
        ),
        (
            format!("{{\"version\":1,{image},\"bitmaps\":[]}}"),
            "bitmaps: an array is not an object",
        ),
    ] {
        let error = parse(&qbm).unwrap_err().to_string();
        assert!(error.starts_with(message), "{qbm}: {error}");
    }
}

#[test]
fn broken_json_tells_where() {
    for text in [
        "",
        "{",
        "[]",
        "{\"QBM\":{}} x",
        "\u{feff}{}",
        "{\"QBM\":{},\"QBM\":{}}",
    ] {
        let error = Descriptor::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("not a QBM descriptor: "),
            "{text}: {error}"
        );
    }
    Descriptor::parse(b"{\"QBM\":\"\xff\"}").unwrap_err();
}

#[test]
fn bad_values_of_a_dirty_bitmap_cost_that_bitmap() {
    for (bitmap, reason) in [
        (
            r#"{"file":"b","granularity-bytes":3000,"type":"dirty"}"#,
            "bitmaps.\"x\".granularity-bytes: 3000 is not a power of two",
        ),
        (
            r#"{"file":"b","granularity-bytes":"64k","type":"dirty"}"#,
            "bitmaps.\"x\".granularity-bytes: \"64k\" is not an integer of bytes",
        ),
        (
            r#"{"granularity-bytes":512,"type":"dirty"}"#,
            "bitmaps.\"x\": member \"file\" is missing",
        ),
        (
            r#"{"file":"b","granularity-bytes":512}"#,
            "bitmaps.\"x\": member \"type\" is missing",
        ),
        ("17", "bitmaps.\"x\": a number is not an object"),
        (
            r#"{"file":"b","granularity-bytes":512,"type":"dirty","backing":{}}"#,
            "bitmaps.\"x\".backing: only an allocation bitmap",
        ),
    ] {
        let descriptor = parse(&with_bitmap("x", bitmap)).unwrap();
        assert!(descriptor.bitmaps.is_empty());
        assert!(
            descriptor.inconsistent[0].reason.starts_with(reason),
            "{}",
            descriptor.inconsistent[0].reason
        );
        // The entry itself is kept to the letter.
        let text = descriptor.to_text().unwrap();
        let again = Descriptor::parse(text.as_bytes()).unwrap();
        let squeeze = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(squeeze(again.inconsistent[0].bitmap.get()), squeeze(bitmap));
        assert!(again.complaints.is_empty(), "said once");
    }
}

#[test]
fn a_name_of_1024_bytes_costs_that_bitmap() {
    let descriptor = parse(&with_bitmap(&"n".repeat(1024), GOOD)).unwrap();
    assert!(descriptor.bitmaps.is_empty());
    assert!(descriptor.complaints[0].contains("1024 bytes, at most 1023"));
}

#[test]
fn unknown_soft_members_stay_where_they_stood() {
    let text = r#"{"ext-soft-a":1.50,"QBM":{"ext-soft-b":[1,2],"version":1,"image":{"ext-soft-c":null,"file":"d","format":"raw"},"ext-soft-d":"é","bitmaps":{"x":{"ext-soft-e":{"k":1},"file":"b","granularity-bytes":512,"type":"dirty"}}}}"#;
    let descriptor = Descriptor::parse(text.as_bytes()).unwrap();
    let written: String = descriptor.to_text().unwrap().split_whitespace().collect();
    let without_checksum = written.split(",\"ext-soft-qbm-crc32c\"").next().unwrap();
    assert_eq!(format!("{without_checksum}}}"), text);
}

#[test]
fn too_many_bitmaps() {
    let entry = |index: usize| format!("\"{index}\":{GOOD}");
    let list = |count: usize| (0..count).map(entry).collect::<Vec<_>>().join(",");
    let text = |count| {
        format!(
            r#"{{"version":1,"image":{{"file":"d","format":"raw"}},"bitmaps":{{{}}}}}"#,
            list(count)
        )
    };
    parse(&text(caps::BITMAPS_MAX)).unwrap();
    assert_eq!(
        parse(&text(caps::BITMAPS_MAX + 1)).unwrap_err().kind(),
        ErrorKind::TooBig
    );
}
