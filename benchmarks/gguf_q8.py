"""A GGUF file with its layers in Q8_0, made of one in another precision, for llama.cpp beside our 8 bits.

    python benchmarks/gguf_q8.py FROM.gguf TO.gguf

What was lost in the first file stays lost; speed is what it is made for.
"""

import sys

import gguf
from gguf.quants import dequantize, quantize

Q8 = gguf.GGMLQuantizationType.Q8_0


def main() -> None:
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue  # written by the writer
        value = gguf.LlamaFileType.MOSTLY_Q8_0 if field.name == gguf.Keys.General.FILE_TYPE else field.contents()
        nested = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], nested)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        if weights.ndim > 1:
            writer.add_tensor(tensor.name, quantize(weights, Q8), raw_dtype=Q8)
        else:
            writer.add_tensor(tensor.name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
