//! Writes GGUF files, sound or lying, without the runtime's reader.
//!
//! [`GgufBuilder`] lays out keys and tensors; [`convert`] turns a model directory into the files
//! llama.cpp's converter makes of it (the Rust twin of `tools/reference/gguf_files.py`).

pub mod convert;

/// Numbers of the value types in a file.
pub mod value_type {
    /// 32-bit unsigned.
    pub const U32: u32 = 4;
    /// 32-bit signed.
    pub const I32: u32 = 5;
    /// 32-bit float.
    pub const F32: u32 = 6;
    /// One byte, 0 or 1.
    pub const BOOL: u32 = 7;
    /// Length and bytes.
    pub const TEXT: u32 = 8;
    /// Element type, count, elements.
    pub const ARRAY: u32 = 9;
}

/// A line of the tensor table and its bytes.
#[derive(Clone, Debug)]
pub struct TensorPart {
    /// Name.
    pub name: String,
    /// Dimensions, innermost first.
    pub dimensions: Vec<u64>,
    /// Number of the block format.
    pub format: u32,
    /// Offset to claim instead of the true one.
    pub offset: Option<u64>,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Keys and tensors of a file to be written.
#[derive(Clone, Debug)]
pub struct GgufBuilder {
    /// Version to claim.
    pub version: u32,
    /// Numbers of tensors and keys to claim instead of the true ones.
    pub counts: [Option<u64>; 2],
    /// Alignment of the data; written as a key unless it is 32.
    pub alignment: u32,
    /// Names, value types and bytes of the keys.
    pub keys: Vec<(String, u32, Vec<u8>)>,
    /// The tensors, in file order.
    pub tensors: Vec<TensorPart>,
}

impl Default for GgufBuilder {
    fn default() -> GgufBuilder {
        GgufBuilder {
            version: 3,
            counts: [None; 2],
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
        }
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

impl GgufBuilder {
    /// Sets a key to a value of any type.
    pub fn key(&mut self, name: &str, value_type: u32, bytes: Vec<u8>) {
        self.keys.retain(|(key, _, _)| key != name);
        self.keys.push((name.to_owned(), value_type, bytes));
    }

    /// Takes a key out.
    pub fn without(&mut self, name: &str) {
        self.keys.retain(|(key, _, _)| key != name);
    }

    /// Sets a key to a whole number.
    pub fn size(&mut self, name: &str, value: u32) {
        self.key(name, value_type::U32, value.to_le_bytes().to_vec());
    }

    /// Sets a key to a float.
    pub fn float(&mut self, name: &str, value: f32) {
        self.key(name, value_type::F32, value.to_le_bytes().to_vec());
    }

    /// Sets a key to true or false.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.key(name, value_type::BOOL, vec![value.into()]);
    }

    /// Sets a key to a text.
    pub fn text(&mut self, name: &str, value: &str) {
        let mut bytes = Vec::new();
        push_text(&mut bytes, value);
        self.key(name, value_type::TEXT, bytes);
    }

    /// Sets a key to an array; `bytes` are the elements.
    pub fn array(&mut self, name: &str, element: u32, count: u64, bytes: &[u8]) {
        let mut value = element.to_le_bytes().to_vec();
        value.extend_from_slice(&count.to_le_bytes());
        value.extend_from_slice(bytes);
        self.key(name, value_type::ARRAY, value);
    }

    /// Sets a key to an array of texts.
    pub fn texts<T: AsRef<str>>(&mut self, name: &str, values: &[T]) {
        let mut bytes = Vec::new();
        for value in values {
            push_text(&mut bytes, value.as_ref());
        }
        self.array(name, value_type::TEXT, values.len() as u64, &bytes);
    }

    /// Sets a key to an array of signed numbers.
    pub fn integers(&mut self, name: &str, values: &[i32]) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.array(name, value_type::I32, values.len() as u64, &bytes);
    }

    /// Sets a key to an array of floats.
    pub fn floats(&mut self, name: &str, values: &[f32]) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.array(name, value_type::F32, values.len() as u64, &bytes);
    }

    /// Adds a tensor of the given dimensions, innermost first.
    pub fn tensor(&mut self, name: &str, dimensions: &[u64], format: u32, data: Vec<u8>) {
        self.tensors.push(TensorPart {
            name: name.to_owned(),
            dimensions: dimensions.to_vec(),
            format,
            offset: None,
            data,
        });
    }

    /// The file, and where its data begins.
    pub fn build_parts(&self) -> (Vec<u8>, usize) {
        let mut keys = self.keys.clone();
        if self.alignment != 32 {
            let bytes = self.alignment.to_le_bytes().to_vec();
            keys.push(("general.alignment".to_owned(), value_type::U32, bytes));
        }
        let mut bytes = b"GGUF".to_vec();
        bytes.extend_from_slice(&self.version.to_le_bytes());
        let counts = [self.tensors.len() as u64, keys.len() as u64];
        for (claimed, count) in self.counts.iter().zip(counts) {
            bytes.extend_from_slice(&claimed.unwrap_or(count).to_le_bytes());
        }
        for (name, value_type, value) in &keys {
            push_text(&mut bytes, name);
            bytes.extend_from_slice(&value_type.to_le_bytes());
            bytes.extend_from_slice(value);
        }
        let alignment = self.alignment.max(1) as usize;
        let mut offset = 0;
        for tensor in &self.tensors {
            push_text(&mut bytes, &tensor.name);
            bytes.extend_from_slice(&(tensor.dimensions.len() as u32).to_le_bytes());
            for dimension in &tensor.dimensions {
                bytes.extend_from_slice(&dimension.to_le_bytes());
            }
            bytes.extend_from_slice(&tensor.format.to_le_bytes());
            let claimed = tensor.offset.unwrap_or(offset as u64);
            bytes.extend_from_slice(&claimed.to_le_bytes());
            offset += tensor.data.len().next_multiple_of(alignment);
        }
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        let start = bytes.len();
        for tensor in &self.tensors {
            bytes.extend_from_slice(&tensor.data);
            let padded = (bytes.len() - start).next_multiple_of(alignment);
            bytes.resize(start + padded, 0);
        }
        (bytes, start)
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        self.build_parts().0
    }
}
