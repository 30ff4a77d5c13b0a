//! What jinja2 has from Python: methods of strings and mappings, how values print, JSON, dates.
// SPDX-License-Identifier: Apache-2.0
use crate::RAISE_MARK;
use minijinja::value::{from_args, Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

const LONGEST: usize = 16 << 20; // bytes of any text made here

pub fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(call_method);
    environment.set_formatter(|out, _state, value| {
        if !value.is_undefined() {
            out.write_str(&python_text(value, false)).map_err(Error::from)?;
        }
        Ok(())
    });
    environment.add_filter("tojson", to_json);
    environment.add_filter("trim", |value: Value, set: Option<String>| -> String {
        strip(&python_text(&value, false), set.as_deref(), true, true).to_string()
    });
    environment.add_filter("string", |value: Value| python_text(&value, false));
    environment.add_filter("indent", indent);
    environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISE_MARK}{text}")))
    });
    environment.add_function("strftime_now", strftime_now);
}

fn wrong(text: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, text.to_string())
}

fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

fn strip<'a>(text: &'a str, set: Option<&str>, left: bool, right: bool) -> &'a str {
    let taken = |character: char| match set {
        Some(set) => set.contains(character),
        None => is_space(character),
    };
    let text = if left { text.trim_start_matches(taken) } else { text };
    if right {
        text.trim_end_matches(taken)
    } else {
        text
    }
}

/// str() of a value, or repr() when `quoted`.
fn python_text(value: &Value, quoted: bool) -> String {
    match value.kind() {
        ValueKind::None => "None".into(),
        ValueKind::Undefined => String::new(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number => number_text(value),
        ValueKind::String if quoted => {
            let text = value.as_str().unwrap_or("");
            let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            let mut out = String::from(mark);
            for character in text.chars() {
                match character {
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if c == mark => out.extend(['\\', c]),
                    c if (c as u32) < 32 || c as u32 == 127 => {
                        out.push_str(&format!("\\x{:02x}", c as u32))
                    }
                    c => out.push(c),
                }
            }
            out.push(mark);
            out
        }
        ValueKind::Seq => {
            let items = value.try_iter().map(|items| {
                items.map(|item| python_text(&item, true)).collect::<Vec<_>>().join(", ")
            });
            format!("[{}]", items.unwrap_or_default())
        }
        ValueKind::Map => {
            let items = value.try_iter().map(|keys| {
                keys.map(|key| {
                    let item = value.get_item(&key).unwrap_or_default();
                    format!("{}: {}", python_text(&key, true), python_text(&item, true))
                })
                .collect::<Vec<_>>()
                .join(", ")
            });
            format!("{{{}}}", items.unwrap_or_default())
        }
        _ => value.to_string(),
    }
}

fn number_text(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    let size = number.abs();
    if number.is_nan() {
        "nan".into()
    } else if number.is_infinite() {
        if number > 0.0 { "inf" } else { "-inf" }.into()
    } else if number != 0.0 && (size < 1e-4 || size >= 1e16) {
        // Python writes 1e-05 where Rust writes 1e-5.
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        format!("{digits}e{sign}{exponent:0>2}")
    } else {
        format!("{number:?}")
    }
}

/// json.dumps(value, ensure_ascii=False, indent=indent), which transformers' tojson is.
fn to_json(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    for name in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = kwargs.get(name)?;
    }
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_json(&value, indent.map(|width| width.min(64)), 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 32 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn write_json(
    value: &Value,
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > 100 || out.len() > LONGEST {
        return Err(wrong("tojson: the value is too deep or too large"));
    }
    let new_line = |depth: usize, out: &mut String| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat(' ').take(width * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Undefined => return Err(wrong("tojson: the value is undefined")),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number_text(value)),
        ValueKind::String => json_string(value.as_str().unwrap_or(""), out),
        ValueKind::Map => {
            let mut first = true;
            out.push('{');
            for key in value.try_iter()? {
                out.push_str(if first { "" } else { comma });
                first = false;
                new_line(depth + 1, out);
                json_string(&python_text(&key, false), out);
                out.push_str(": ");
                write_json(&value.get_item(&key)?, indent, depth + 1, out)?;
            }
            if !first {
                new_line(depth, out);
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut first = true;
            out.push('[');
            for item in value.try_iter()? {
                out.push_str(if first { "" } else { comma });
                first = false;
                new_line(depth + 1, out);
                write_json(&item, indent, depth + 1, out)?;
            }
            if !first {
                new_line(depth, out);
            }
            out.push(']');
        }
        _ => return Err(wrong("tojson: a value that JSON does not have")),
    }
    Ok(())
}

fn indent(
    text: String,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = match kwargs.get::<Option<usize>>("width")? {
        Some(width) => width,
        None => width.unwrap_or(4),
    };
    let first = kwargs.get::<Option<bool>>("first")?.or(first).unwrap_or(false);
    let blank = kwargs.get::<Option<bool>>("blank")?.or(blank).unwrap_or(false);
    kwargs.assert_all_used()?;
    let lines = text.split('\n').count();
    if width > LONGEST || lines.saturating_mul(width).saturating_add(text.len()) > LONGEST {
        return Err(wrong("indent: the text would be too long"));
    }
    let space = " ".repeat(width);
    let mut out = String::new();
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        if (number > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(&space);
        }
        out.push_str(line);
    }
    Ok(out)
}

extern "C" {
    fn time(at: *mut i64) -> i64;
    fn localtime_r(at: *const i64, broken_down: *mut u64) -> *mut u64;
    fn strftime(out: *mut u8, size: usize, format: *const u8, broken_down: *const u64) -> usize;
}

/// datetime.now().strftime(format), through the C library.
fn strftime_now(format: String) -> Result<String, Error> {
    if format.is_empty() || format.len() > 200 || format.contains('\0') {
        return Err(wrong("strftime_now: the format is empty or too long"));
    }
    let terminated = format!("{format}\0");
    let mut broken_down = [0u64; 16]; // struct tm is 56 bytes
    let mut out = vec![0u8; 4096];
    // SAFETY: the buffers are as long as the C library is told, and the format ends with 0.
    let size = unsafe {
        let mut now = 0i64;
        time(&mut now);
        if localtime_r(&now, broken_down.as_mut_ptr()).is_null() {
            return Err(wrong("strftime_now: no local time"));
        }
        strftime(out.as_mut_ptr(), out.len(), terminated.as_ptr(), broken_down.as_ptr())
    };
    out.truncate(size);
    String::from_utf8(out).map_err(|_| wrong("strftime_now: not UTF-8"))
}

fn call_method(
    state: &State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return call_string_method(text, name, args);
    }
    if value.kind() == ValueKind::Map {
        match name {
            "items" => return state.apply_filter("items", &[value.clone()]),
            "keys" => return Ok(Value::from(value.try_iter()?.collect::<Vec<_>>())),
            "values" => {
                let values: Result<Vec<_>, _> =
                    value.try_iter()?.map(|key| value.get_item(&key)).collect();
                return Ok(Value::from(values?));
            }
            "get" => {
                let (key, otherwise): (&Value, Option<Value>) = from_args(args)?;
                let found = value.get_item(key)?;
                return Ok(if found.is_undefined() {
                    otherwise.unwrap_or_else(|| Value::from(()))
                } else {
                    found
                });
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Seq && (name == "index" || name == "count") {
        let (wanted,): (&Value,) = from_args(args)?;
        if name == "count" {
            return Ok(Value::from(value.try_iter()?.filter(|item| item == wanted).count()));
        }
        let place = value.try_iter()?.position(|item| &item == wanted);
        return place.map(Value::from).ok_or_else(|| wrong("index: no such item"));
    }
    Err(Error::new(ErrorKind::UnknownMethod, format!("no method named {name}")))
}

fn begins_or_ends(text: &str, args: &[Value], ends: bool) -> Result<Value, Error> {
    let (what,): (&Value,) = from_args(args)?;
    let holds = |part: &str| if ends { text.ends_with(part) } else { text.starts_with(part) };
    if let Some(part) = what.as_str() {
        return Ok(Value::from(holds(part)));
    }
    let mut any = false;
    for part in what.try_iter()? {
        any = any || part.as_str().map_or(false, holds);
    }
    Ok(Value::from(any))
}

fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most): (Option<&Value>, Option<i64>) = from_args(args)?;
    let most = match most {
        Some(most) if most >= 0 => most as usize,
        _ => usize::MAX - 1,
    };
    let separator = separator.and_then(|separator| separator.as_str());
    let mut parts: Vec<Value> = Vec::new();
    match separator {
        Some("") => return Err(wrong("split: empty separator")),
        Some(separator) if from_right => {
            parts.extend(text.rsplitn(most + 1, separator).map(Value::from));
            parts.reverse();
        }
        Some(separator) => parts.extend(text.splitn(most + 1, separator).map(Value::from)),
        None => {
            let mut rest = strip(text, None, true, true);
            while !rest.is_empty() {
                let at = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
                match at {
                    Some(at) if parts.len() < most => {
                        let (left, right) = rest.split_at(at);
                        if from_right {
                            parts.push(Value::from(strip(right, None, true, false)));
                            rest = strip(left, None, false, true);
                        } else {
                            parts.push(Value::from(left));
                            rest = strip(right, None, true, false);
                        }
                    }
                    _ => {
                        parts.push(Value::from(rest));
                        rest = "";
                    }
                }
            }
            if from_right {
                parts.reverse();
            }
        }
    }
    Ok(Value::from(parts))
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters.flat_map(char::to_lowercase)).collect(),
        None => String::new(),
    }
}

fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    out
}

fn replace(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let places = text.matches(old).take(count).count();
    if places.saturating_mul(new.len()).saturating_add(text.len()) > LONGEST {
        return Err(wrong("replace: the text would be too long"));
    }
    Ok(Value::from(text.replacen(old, new, count)))
}

fn call_string_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(strip(text, set, name != "rstrip", name != "lstrip")))
        }
        "startswith" => begins_or_ends(text, args, false),
        "endswith" => begins_or_ends(text, args, true),
        "split" => split(text, args, false),
        "rsplit" => split(text, args, true),
        "replace" => replace(text, args),
        "splitlines" => Ok(Value::from(text.lines().map(Value::from).collect::<Vec<_>>())),
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let rest =
                if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "find" | "rfind" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if name == "find" { text.find(part) } else { text.rfind(part) };
            Ok(Value::from(at.map_or(-1, |at| text[..at].chars().count() as i64)))
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Ok(Value::from(text.matches(part).count()))
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            let mut out = String::new();
            for (number, item) in items.try_iter()?.enumerate() {
                out.push_str(if number > 0 { text } else { "" });
                out.push_str(item.as_str().ok_or_else(|| wrong("join: an item is no string"))?);
                if out.len() > LONGEST {
                    return Err(wrong("join: the text would be too long"));
                }
            }
            Ok(Value::from(out))
        }
        _ => {
            from_args::<()>(args)?;
            let all = |holds: fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
            Ok(match name {
                "upper" => Value::from(text.to_uppercase()),
                "lower" => Value::from(text.to_lowercase()),
                "capitalize" => Value::from(capitalize(text)),
                "title" => Value::from(title(text)),
                "isdigit" => Value::from(all(|c| c.is_ascii_digit())),
                "isalpha" => Value::from(all(char::is_alphabetic)),
                "isalnum" => Value::from(all(char::is_alphanumeric)),
                "isspace" => Value::from(all(is_space)),
                "islower" => Value::from(text == text.to_lowercase() && text != text.to_uppercase()),
                "isupper" => Value::from(text == text.to_uppercase() && text != text.to_lowercase()),
                _ => {
                    let text = format!("no string method named {name}");
                    return Err(Error::new(ErrorKind::UnknownMethod, text));
                }
            })
        }
    }
}
