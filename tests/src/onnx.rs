//! ONNX files, field by field, so that they can say anything.

/// Floats of 32 bits, as `onnx.proto` numbers types of elements.
pub const FLOAT: u64 = 1;
/// Bytes.
pub const UINT8: u64 = 2;
/// Whole numbers of 8 bits.
pub const INT8: u64 = 3;
/// Whole numbers of 64 bits.
pub const INT64: u64 = 7;
/// Texts.
pub const TEXT: u64 = 8;
/// Floats of 16 bits.
pub const FLOAT16: u64 = 10;
/// Floats of 16 bits that reach as far as those of 32.
pub const BFLOAT16: u64 = 16;
/// Whole numbers of 4 bits, two to a byte.
pub const UINT4: u64 = 21;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field with a message, text or list.
pub fn field(number: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [
        varint(number << 3 | 2),
        varint(bytes.len() as u64),
        bytes.to_vec(),
    ]
    .concat()
}

/// A field with a whole number.
pub fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// An initialiser whose bytes are its data.
pub fn tensor(name: &str, data_type: u64, dims: &[u64], data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    let tensor = [dims, number(2, data_type), field(8, name), field(9, data)].concat();
    field(5, tensor)
}

/// An initialiser whose data is the whole file `location` beside the model.
pub fn distant(name: &str, data_type: u64, dims: &[u64], location: &str) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| number(1, *dim)).collect();
    let place = field(13, [field(1, "location"), field(2, location)].concat());
    let tensor = [
        dims,
        number(2, data_type),
        field(8, name),
        place,
        number(14, 1),
    ]
    .concat();
    field(5, tensor)
}

/// A node with whole numbers for attributes.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, u64)]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name));
    let outputs = outputs.iter().flat_map(|name| field(2, name));
    let attributes = attributes
        .iter()
        .flat_map(|(name, value)| field(5, [field(1, name), number(3, *value)].concat()));
    let ports: Vec<u8> = inputs.chain(outputs).chain(attributes).collect();
    field(1, [ports, field(4, op)].concat())
}

/// An `If` of one output that an input decides.
pub fn choice(condition: &str, output: &str, branches: [&[Vec<u8>]; 2]) -> Vec<u8> {
    let graph = |name: &str, nodes: &[Vec<u8>]| {
        let graph = [nodes.concat(), field(12, field(1, output))].concat();
        field(5, [field(1, name), field(6, graph)].concat())
    };
    let [then, otherwise] = branches;
    let node = [
        field(1, condition),
        field(2, output),
        field(4, "If"),
        graph("then_branch", then),
        graph("else_branch", otherwise),
    ];
    let input = field(11, field(1, condition));
    [field(1, node.concat()), input].concat()
}

/// A model of one input and one output.
pub fn model(input: &str, output: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    let ports = [field(11, field(1, input)), field(12, field(1, output))].concat();
    field(7, [parts.concat(), ports].concat())
}
