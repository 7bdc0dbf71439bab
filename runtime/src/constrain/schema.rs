//! Schemas: the part of JSON Schema (draft 2020-12) that can be a form of an answer.
//!
//! | `type` | further keywords |
//! |---|---|
//! | `object` | `properties` (written in this order), `required`, `additionalProperties` (never written) |
//! | `array` | `items`, `maxItems` (default 16) |
//! | `string` | `maxLength` (default 256), or `enum` of strings |
//! | `integer` | `minimum`, `maximum` (default ±999999999) |
//! | `number` | the same; at most three digits after the point, no exponent |
//! | `boolean` | |
//!
//! Beside these `title`, `description`, `default`, `examples`, `$comment`, `$id` and `$schema` may
//! stand anywhere. Instead of `T`, a value without values inside may have the type `[T, "null"]`.
//! Anything else is an error: it would not be obeyed.

mod tree;

use super::node::{self, Node};
use super::number::Range;
use super::{
    DECIMALS, Grammar, GrammarError, MAX_ALTERNATIVES, MAX_DEPTH, MAX_NODES, MAX_NUMBER, MAX_TEXT,
};
use tree::Tree;

/// Most values of an array that does not say.
const DEFAULT_ITEMS: u16 = 16;
/// Keywords that say nothing about the form.
const REMARKS: [&str; 7] = [
    "title",
    "description",
    "default",
    "examples",
    "$comment",
    "$id",
    "$schema",
];
/// The types of values.
const TYPES: [&str; 6] = ["object", "array", "string", "integer", "number", "boolean"];

/// Makes a schema a grammar.
pub(super) fn compile(schema: &str) -> Result<Grammar, GrammarError> {
    let tree: Tree = serde_json::from_str(schema).map_err(|error| GrammarError::Syntax {
        what: error.to_string(),
    })?;
    let mut compiler = Compiler {
        nodes: Vec::new(),
        paths: Vec::new(),
    };
    let root = compiler.value(&tree, &Place::default())?;
    Ok(Grammar {
        nodes: compiler.nodes,
        paths: compiler.paths,
        root,
    })
}

struct Compiler {
    nodes: Vec<Node>,
    paths: Vec<String>,
}

/// Where in the schema, and where in the document.
#[derive(Clone, Debug, Default)]
struct Place {
    schema: String,
    value: String,
    depth: usize,
}

impl Place {
    fn keyword(&self, keyword: &str) -> String {
        match self.schema.is_empty() {
            true => keyword.to_owned(),
            false => format!("{}.{keyword}", self.schema),
        }
    }

    fn property(&self, name: &str) -> Place {
        Place {
            schema: self.keyword(&format!("properties.{name}")),
            value: match self.value.is_empty() {
                true => name.to_owned(),
                false => format!("{}.{name}", self.value),
            },
            depth: self.depth + 1,
        }
    }

    fn items(&self) -> Place {
        Place {
            schema: self.keyword("items"),
            value: format!("{}[]", self.value),
            depth: self.depth + 1,
        }
    }

    fn named(&self) -> String {
        match self.schema.is_empty() {
            true => "the top".to_owned(),
            false => self.schema.clone(),
        }
    }

    fn wrong(&self, keyword: &str, found: &Tree, needed: &str) -> GrammarError {
        GrammarError::Value {
            at: self.keyword(keyword),
            found: found.brief(),
            needed: needed.to_owned(),
        }
    }
}

/// A schema's keywords.
struct Keywords<'t> {
    list: &'t [(String, Tree)],
    place: &'t Place,
}

impl<'t> Keywords<'t> {
    fn of(tree: &'t Tree, place: &'t Place) -> Result<Keywords<'t>, GrammarError> {
        match tree {
            Tree::Object(list) => Ok(Keywords { list, place }),
            other => Err(GrammarError::Value {
                at: place.named(),
                found: other.brief(),
                needed: "a schema: an object with a type".to_owned(),
            }),
        }
    }

    fn get(&self, keyword: &str) -> Option<&'t Tree> {
        let found = self.list.iter().find(|(name, _)| name == keyword);
        found.map(|(_, value)| value)
    }

    /// Refuses keywords that would not be obeyed.
    fn only(&self, allowed: &[&str]) -> Result<(), GrammarError> {
        let known =
            |name: &str| name == "type" || allowed.contains(&name) || REMARKS.contains(&name);
        match self.list.iter().find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((keyword, _)) => Err(GrammarError::Keyword {
                at: self.place.named(),
                keyword: keyword.clone(),
                supported: format!("type {}", allowed.join(" ")).trim_end().to_owned(),
            }),
        }
    }

    /// The type, and whether it may be null instead.
    fn type_name(&self) -> Result<(&'t str, bool), GrammarError> {
        let needed = "one of object, array, string, integer, number, boolean, or one of the last four with \"null\"";
        let Some(tree) = self.get("type") else {
            return Err(GrammarError::Empty {
                at: self.place.named(),
                what: format!("there is no type; it must be {needed}"),
            });
        };
        let wrong = || self.place.wrong("type", tree, needed);
        match tree {
            Tree::Text(name) if TYPES.contains(&name.as_str()) => Ok((name, false)),
            Tree::List(names) => match &names[..] {
                [Tree::Text(name), Tree::Text(null)] | [Tree::Text(null), Tree::Text(name)]
                    if null == "null" && TYPES[2..].contains(&name.as_str()) =>
                {
                    Ok((name, true))
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }

    /// A keyword that counts something.
    fn count(&self, keyword: &str, default: u16) -> Result<u16, GrammarError> {
        let Some(tree) = self.get(keyword) else {
            return Ok(default);
        };
        tree.number()
            .filter(|count| count.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(count))
            // The range was just checked.
            .map(|count| count as u16)
            .ok_or_else(|| {
                self.place
                    .wrong(keyword, tree, "a whole number from 0 to 65535")
            })
    }

    /// A bound of a number in units of `10^-decimals`, rounded into the range.
    fn bound(
        &self,
        keyword: &str,
        default: i64,
        decimals: u32,
        round: fn(f64) -> f64,
    ) -> Result<i64, GrammarError> {
        let unit = 10f64.powi(decimals as i32);
        let Some(tree) = self.get(keyword) else {
            return Ok(default * 10i64.pow(decimals));
        };
        tree.number()
            .filter(|bound| bound.abs() <= MAX_NUMBER as f64)
            .map(|bound| round(tidied(bound * unit)) as i64)
            .ok_or_else(|| {
                let needed = format!("a number within -{MAX_NUMBER} to {MAX_NUMBER}");
                self.place.wrong(keyword, tree, &needed)
            })
    }
}

/// The nearest whole number, if binary fractions alone keep the value from it: 0.3 · 1000.
fn tidied(value: f64) -> f64 {
    match (value - value.round()).abs() < 1e-6 {
        true => value.round(),
        false => value,
    }
}

impl Compiler {
    fn add(&mut self, node: Node, place: &Place) -> Result<u16, GrammarError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(GrammarError::TooMuch {
                at: format!("schema at {}", place.named()),
                found: "one value more".to_owned(),
                limit: MAX_NODES,
            });
        }
        self.nodes.push(node);
        self.paths.push(place.value.clone());
        // MAX_NODES fits.
        Ok(self.nodes.len() as u16 - 1)
    }

    fn value(&mut self, tree: &Tree, place: &Place) -> Result<u16, GrammarError> {
        if place.depth >= MAX_DEPTH {
            return Err(GrammarError::TooMuch {
                at: format!("schema at {}", place.named()),
                found: format!("{} values inside each other", place.depth + 1),
                limit: MAX_DEPTH,
            });
        }
        let keywords = Keywords::of(tree, place)?;
        let (name, or_null) = keywords.type_name()?;
        let node = match name {
            "object" => self.object(&keywords)?,
            "array" => self.array(&keywords)?,
            "string" => string(&keywords)?,
            "integer" => number(&keywords, 0)?,
            "number" => number(&keywords, DECIMALS)?,
            _ => {
                keywords.only(&[])?;
                node::texts(&["true", "false"], &place.named())?
            }
        };
        let node = self.add(node, place)?;
        if !or_null {
            return Ok(node);
        }
        let null = self.add(node::texts(&["null"], &place.named())?, place)?;
        self.add(Node::Optional { null, other: node }, place)
    }

    fn array(&mut self, keywords: &Keywords<'_>) -> Result<Node, GrammarError> {
        keywords.only(&["items", "maxItems"])?;
        let place = keywords.place;
        let items = keywords.get("items").ok_or_else(|| GrammarError::Empty {
            at: place.named(),
            what: "an array needs items: the schema of its values".to_owned(),
        })?;
        Ok(Node::Array {
            most: keywords.count("maxItems", DEFAULT_ITEMS)?,
            item: self.value(items, &place.items())?,
        })
    }

    fn object(&mut self, keywords: &Keywords<'_>) -> Result<Node, GrammarError> {
        keywords.only(&["properties", "required", "additionalProperties"])?;
        let place = keywords.place;
        match keywords.get("additionalProperties") {
            None | Some(Tree::Bool(_)) => {}
            Some(other) => {
                return Err(place.wrong("additionalProperties", other, "true or false"));
            }
        }
        let properties = match keywords.get("properties") {
            Some(Tree::Object(list)) if !list.is_empty() => &list[..],
            Some(other) => {
                return Err(place.wrong("properties", other, "an object with a schema a name"));
            }
            None => {
                return Err(GrammarError::Empty {
                    at: place.named(),
                    what: "an object needs properties".to_owned(),
                });
            }
        };
        if properties.len() > MAX_ALTERNATIVES {
            return Err(GrammarError::TooMuch {
                at: place.keyword("properties"),
                found: format!("{} properties", properties.len()),
                limit: MAX_ALTERNATIVES,
            });
        }
        let required = required(keywords, properties)?;
        let mut keys = Vec::with_capacity(properties.len());
        let mut values = Vec::with_capacity(properties.len());
        for (name, schema) in properties {
            if name.len() > MAX_TEXT {
                return Err(GrammarError::TooMuch {
                    at: place.keyword("properties"),
                    found: format!("a name of {} bytes", name.len()),
                    limit: MAX_TEXT,
                });
            }
            keys.push(format!("{}:", json_text(name)).into_bytes().into());
            values.push(self.value(schema, &place.property(name))?);
        }
        Ok(Node::Object {
            keys,
            values,
            required,
        })
    }
}

/// A bit for each property that must be there.
fn required(keywords: &Keywords<'_>, properties: &[(String, Tree)]) -> Result<u64, GrammarError> {
    let needed = "a list of names in properties";
    let list = match keywords.get("required") {
        None => return Ok(0),
        Some(Tree::List(list)) => list,
        Some(other) => return Err(keywords.place.wrong("required", other, needed)),
    };
    list.iter().try_fold(0, |bits, name| {
        let at = match name {
            Tree::Text(name) => properties.iter().position(|(known, _)| known == name),
            _ => None,
        };
        let at = at.ok_or_else(|| keywords.place.wrong("required", name, needed))?;
        Ok(bits | 1 << at)
    })
}

fn string(keywords: &Keywords<'_>) -> Result<Node, GrammarError> {
    keywords.only(&["maxLength", "enum"])?;
    let place = keywords.place;
    let Some(tree) = keywords.get("enum") else {
        return Ok(Node::Text(keywords.count("maxLength", MAX_TEXT as u16)?));
    };
    let wrong = || place.wrong("enum", tree, "a list of different texts, at least one");
    let Tree::List(list) = tree else {
        return Err(wrong());
    };
    let mut texts = Vec::with_capacity(list.len());
    for item in list {
        match item {
            Tree::Text(text) if !texts.contains(&json_text(text)) => texts.push(json_text(text)),
            _ => return Err(wrong()),
        }
    }
    if texts.is_empty() {
        return Err(wrong());
    }
    keywords.only(&["enum"])?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    node::texts(&texts, &place.keyword("enum"))
}

fn number(keywords: &Keywords<'_>, decimals: u32) -> Result<Node, GrammarError> {
    keywords.only(&["minimum", "maximum"])?;
    let low = keywords.bound("minimum", -MAX_NUMBER, decimals, f64::ceil)?;
    let high = keywords.bound("maximum", MAX_NUMBER, decimals, f64::floor)?;
    let range = Range::new(low, high, decimals);
    let range = range.map_err(|error| match error {
        GrammarError::Empty { what, .. } => GrammarError::Empty {
            at: keywords.place.named(),
            what,
        },
        other => other,
    })?;
    Ok(Node::Number(range))
}

/// A text as JSON.
fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
