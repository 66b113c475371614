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

const ALLOCATION: &str = r#"{"file":"b","granularity-bytes":512,"type":"allocation","backing":{"file":"c","format":"raw"}}"#;
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
                r#"{"file":"b","granularity-bytes":3000,"type":"allocation"}"#,
            ),
            "bitmaps.\"b\".granularity-bytes: 3000 is not a power of two",
        ),
        (
            with_bitmap(
                "b",
                r#"{"file":"b","granularity-bytes":512,"type":"allocation","backing":{"file":"c"}}"#,
            ),
            "bitmaps.\"b\".backing: member \"format\" is missing",
        ),
        (
            with_bitmap("b", &format!("{ALLOCATION},\"c\":{ALLOCATION}")),
            "bitmaps.\"c\": a second allocation bitmap, beside \"b\"",
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
            r#"{"file":"b","granularity-bytes":512,"type":"dirty","ext-soft-qbm-crc32c":"+0000001"}"#,
            "bitmaps.\"x\".ext-soft-qbm-crc32c: \"+0000001\" is not eight hexadecimal digits",
        ),
        (
            r#"{"file":"b","granularity-bytes":512,"type":"dirty","ext-soft-qbm-user-data":"A"}"#,
            "bitmaps.\"x\".ext-soft-qbm-user-data: not base64",
        ),
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
        assert!(again.complaints().is_empty(), "said once");
    }
}

#[test]
fn a_name_of_1024_bytes_costs_that_bitmap() {
    let descriptor = parse(&with_bitmap(&"n".repeat(1024), GOOD)).unwrap();
    assert!(descriptor.bitmaps.is_empty());
    assert!(descriptor.complaints()[0].contains("1024 bytes, at most 1023"));
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

#[test]
fn what_is_wrong_with_our_own_soft_members_never_keeps_the_disk_from_opening() {
    for (member, words) in [
        (
            r#""ext-soft-qbm-seal":5"#,
            "ext-soft-qbm-seal: 5 is not a seal",
        ),
        (
            r#""ext-soft-qbm-durability":"eternal""#,
            "is not a durability",
        ),
        (
            r#""ext-soft-qbm-persist-bitmaps":"some""#,
            "is not a rule for storing bitmaps",
        ),
        (r#""ext-soft-qbm-trusted":{}"#, "is not an array"),
        (r#""ext-soft-qbm-inconsistent":[]"#, "is not an object"),
    ] {
        let qbm = with_bitmap("x", GOOD).replacen('{', &format!("{{{member},"), 1);
        let descriptor = parse(&qbm).unwrap();
        assert!(
            descriptor.complaints()[0].contains(words),
            "{:?}",
            descriptor.complaints()
        );
        assert_eq!(descriptor.bitmaps.len(), 1);
        assert_eq!(descriptor.seal_is_damaged, member.contains("seal"));
        let kept = descriptor.to_text().unwrap();
        let name = member.split('"').nth(1).unwrap();
        assert_eq!(kept.contains(name), !member.contains("seal"), "{kept}");
    }
    let unknown = with_bitmap("x", GOOD).replacen('{', r#"{"ext-hard-qbm-session":{},"#, 1);
    assert_eq!(parse(&unknown).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn an_entry_among_the_inconsistent_that_cannot_be_read_is_kept() {
    let list = r#"{"ext-soft-qbm-inconsistent":{"y":17,"z":{"reason":"r","bitmap":{"file":"f"}}},"#;
    let descriptor = parse(&with_bitmap("x", GOOD).replacen('{', list, 1)).unwrap();
    let [y, z] = descriptor.inconsistent.as_slice() else {
        panic!("{:?}", descriptor.inconsistent);
    };
    assert_eq!((y.name.as_str(), y.bitmap.get()), ("y", "17"));
    assert_eq!((z.reason.as_str(), z.file().as_deref()), ("r", Some("f")));
    let text = descriptor.to_text().unwrap();
    assert_eq!(
        Descriptor::parse(text.as_bytes())
            .unwrap()
            .inconsistent
            .len(),
        2
    );
}

#[test]
fn user_data_is_any_bytes_up_to_its_cap() {
    let mut descriptor = parse(&with_bitmap("x", GOOD)).unwrap();
    for length in [0, 1, 2, 3, caps::USER_DATA_BYTES_MAX] {
        let data: Vec<u8> = (0..length).map(|index| index as u8).collect();
        descriptor.bitmaps[0].user_data = Some(data.clone());
        let text = descriptor.to_text().unwrap();
        let read = Descriptor::parse(text.as_bytes()).unwrap();
        assert_eq!(read.bitmaps[0].user_data, Some(data), "{length}");
    }
    descriptor.bitmaps[0].user_data = Some(vec![0; caps::USER_DATA_BYTES_MAX + 1]);
    let read = Descriptor::parse(descriptor.to_text().unwrap().as_bytes()).unwrap();
    assert!(
        read.inconsistent[0].reason.contains("at most 65536"),
        "{:?}",
        read.inconsistent
    );
}

#[test]
fn many_entries_are_refused_at_once() {
    // Looking for each name among all others took minutes.
    let many = (0..400_000)
        .map(|n| format!("\"{n}\":0"))
        .collect::<Vec<_>>();
    let many = many.join(",");
    for member in ["bitmaps", "ext-soft-qbm-inconsistent"] {
        let qbm = format!(
            r#"{{"version":1,"image":{{"file":"d","format":"raw"}},"{member}":{{{many}}}}}"#
        );
        assert_eq!(parse(&qbm).unwrap_err().kind(), ErrorKind::TooBig);
    }
}

#[test]
fn a_member_that_occurs_twice_hides_nothing() {
    // The entry did not parse, and so its `ext-hard-` and its type were overlooked.
    for bitmap in [
        r#"{"ext-hard-x":1,"file":"b","file":"c","granularity-bytes":512,"type":"dirty"}"#,
        r#"{"file":"b","granularity-bytes":512,"type":"dirty","type":"allocation"}"#,
    ] {
        let error = parse(&with_bitmap("b", bitmap)).unwrap_err();
        assert!(error.to_string().contains("occurs twice"), "{error}");
    }
}
