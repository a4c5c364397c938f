// Runs an artifact with ONNX Runtime's C++ API.
//
//   g++ -std=c++17 -O2 main.cpp -I ORT/include -L ORT/lib -lonnxruntime -o run
//   ./run DIR picture.ppm class_labels=18 [NAME=NUMBERS|NAME=FILE.npy …] [seed=1]
//
// ORT is an unpacked release of onnxruntime (1.17 or later), which has headers and library. Also needs nlohmann/json (nlohmann-json3-dev).
// The result is a picture as .pgm or .ppm, or bare floats (bytes, where it is of them) under any other name.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <numeric>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>

using nlohmann::json;
using Shape = std::vector<int64_t>;

// The memory of one input; the runtime reads it in place.
struct Input {
  std::vector<char> bytes;
  Shape shape;
  ONNXTensorElementDataType type;
};

template <typename T>
std::vector<char> packed(const std::vector<double>& numbers) {
  std::vector<T> values(numbers.begin(), numbers.end());
  const char* first = reinterpret_cast<const char*>(values.data());
  return {first, first + values.size() * sizeof(T)};
}

// An element type of a manifest: as ONNX Runtime and numpy name it, its size, and how numbers become it (not for half precision).
struct Element {
  ONNXTensorElementDataType type;
  std::string numpy;
  size_t size;
  std::vector<char> (*pack)(const std::vector<double>&);
};

const std::map<std::string, Element> ELEMENTS = {
    {"float", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "f4", 4, packed<float>}},
    {"double", {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, "f8", 8, packed<double>}},
    {"float16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, "f2", 2, nullptr}},
    {"int64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "i8", 8, packed<int64_t>}},
    {"int32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "i4", 4, packed<int32_t>}},
    {"bool", {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, "b1", 1, packed<uint8_t>}},
};

size_t count_of(const Shape& shape) { return std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>()); }

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The elements of a .npy file (numpy's NEP 1) of this type, in C order.
std::vector<char> npy(const std::string& path, const std::string& type) {
  const std::string file = whole(path);
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<unsigned char>(file.at(at))); };
  const size_t start = byte(6) == 1 ? 10 + byte(8) + 256 * byte(9) : 12 + byte(8) + 256 * (byte(9) + 256 * (byte(10) + 256 * byte(11)));
  const std::string header = file.substr(0, start);
  if (header.find(type + "'") == std::string::npos || header.find("'fortran_order': False") == std::string::npos)
    throw std::runtime_error(path + " is not of type " + type + " in C order");
  return {file.begin() + static_cast<std::ptrdiff_t>(start), file.end()};
}

// What was given for an input: a .npy file or numbers with commas between; all of it, one row for all of the batch, or one number.
std::vector<char> parsed(const std::string& text, const Element& element, const Shape& shape, const std::string& name) {
  std::vector<char> given;
  if (ends_with(text, ".npy")) {
    given = npy(text, element.numpy);
  } else {
    if (!element.pack) throw std::runtime_error("'" + name + "' is in half precision: give it as a .npy file");
    std::vector<double> numbers;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) numbers.push_back(std::stod(part));
    given = element.pack(numbers);
  }
  const size_t size = count_of(shape) * element.size;
  const size_t row = shape.empty() ? size : size / static_cast<size_t>(shape[0]);
  if (given.size() != size && given.size() != row && given.size() != element.size)
    throw std::runtime_error("'" + name + "' has " + std::to_string(count_of(shape)) + " numbers, and another number of them is given");
  std::vector<char> bytes(size);
  for (size_t i = 0; i < size; i++) bytes[i] = given[i % given.size()];
  return bytes;
}

// The inputs of a run: what was given for them, else what the manifest says.
std::vector<Input> inputs_of(const json& manifest, const std::map<std::string, std::string>& given, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<Input> inputs;
  for (const json& port : manifest.at("inputs")) {
    const std::string name = port["name"];
    const Shape shape = port["shape"];
    if (!ELEMENTS.count(port["elem"])) throw std::runtime_error("'" + name + "' is of a type that is not known here");
    const Element& element = ELEMENTS.at(port["elem"]);
    Input input{{}, shape, element.type};
    if (given.count(name)) {
      input.bytes = parsed(given.at(name), element, shape, name);
    } else if (port.value("draw", "") == "unit normal") {
      std::vector<float> values(count_of(shape));
      std::generate(values.begin(), values.end(), [&] { return normal(generator); });
      input.bytes.resize(values.size() * sizeof(float));
      std::memcpy(input.bytes.data(), values.data(), input.bytes.size());
    } else if (port.contains("default") && element.pack) {
      input.bytes = element.pack(std::vector<double>(count_of(shape), port["default"].get<double>()));
    } else {
      throw std::runtime_error("say what the input '" + name + "' is: " + name + "=VALUE");
    }
    inputs.push_back(std::move(input));
  }
  return inputs;
}

// Writes values [batch, channels, height, width], or bytes [batch, height, width, channels], as one picture, the batch side by side. Of four
// channels or more, three are shown.
template <typename T>
void write_picture(std::ostream& file, const T* values, const Shape& shape, const json& recipe) {
  const bool is_bytes = std::is_same_v<T, uint8_t>;
  const int64_t batch = shape[0], channels = shape[is_bytes ? 3 : 1], height = shape[is_bytes ? 1 : 2], width = shape[is_bytes ? 2 : 3];
  const json range = is_bytes ? json{0, 255} : recipe.value("/display/range"_json_pointer, json{-1, 1});
  const float black = range[0], white = range[1];
  const int64_t shown = channels == 1 ? 1 : 3;
  file << (shown == 1 ? "P5 " : "P6 ") << batch * width << ' ' << height << " 255\n";
  for (int64_t y = 0; y < height; y++)
    for (int64_t sample = 0; sample < batch; sample++)
      for (int64_t x = 0; x < width; x++)
        for (int64_t channel = 0; channel < shown; channel++) {
          const int64_t row = sample * height + y, plane = sample * channels + channel;
          const float value = values[is_bytes ? (row * width + x) * channels + channel : (plane * height + y) * width + x];
          file.put(static_cast<char>(std::lround(std::clamp(255 * (value - black) / (white - black), 0.0f, 255.0f))));
        }
}

void run(const std::string& folder, const std::string& output, std::map<std::string, std::string> given) {
  const json manifest = json::parse(whole(folder + "/manifest.json"));
  const unsigned seed = given.count("seed") ? static_cast<unsigned>(std::stoul(given["seed"])) : 0;
  const bool is_picture = ends_with(output, ".pgm") || ends_with(output, ".ppm");
  const Shape shape = manifest.at("outputs").back()["shape"];
  const bool is_bytes = manifest.at("outputs").back()["elem"] == "uint8";
  if (is_picture && (shape.size() != 4 || shape[is_bytes ? 3 : 1] == 2)) throw std::runtime_error("the result is no picture: name a .bin file for it");
  std::vector<Input> inputs = inputs_of(manifest, given, seed);

  Ort::Env env(ORT_LOGGING_LEVEL_WARNING);
  Ort::SessionOptions options;
  // As `load` of the manifest advises: what the optimiser would do is done.
  if (manifest.at("load").at("graphOptimizationLevel") == "disabled") options.SetGraphOptimizationLevel(ORT_DISABLE_ALL);
  if (!manifest.at("load").at("enableMemPattern")) options.DisableMemPattern();
  // Else the runtime copies each weight into another layout, once for every node that reads it: for every step.
  options.AddConfigEntry("session.disable_prepacking", "1");
  Ort::Session session(env, (folder + "/model.onnx").c_str(), options);

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<std::string> texts;
  for (const json& port : manifest.at("inputs")) texts.push_back(port["name"]);
  std::vector<const char*> names;
  std::vector<Ort::Value> values;
  for (size_t i = 0; i < inputs.size(); i++) {
    Input& input = inputs[i];
    names.push_back(texts[i].c_str());
    values.push_back(Ort::Value::CreateTensor(memory, input.bytes.data(), input.bytes.size(), input.shape.data(), input.shape.size(), input.type));
  }
  // The latent comes first, what a decoder makes of it last.
  const std::string shown = manifest.at("outputs").back()["name"];
  const char* result = shown.c_str();
  const auto results = session.Run(Ort::RunOptions{nullptr}, names.data(), values.data(), values.size(), &result, 1);
  if (!is_bytes && results[0].GetTensorTypeAndShapeInfo().GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
    throw std::runtime_error("the result is not of type float");

  std::ofstream file(output, std::ios::binary);
  const auto write = [&](const auto* data) {
    if (is_picture)
      write_picture(file, data, shape, manifest.at("recipe"));
    else
      file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(count_of(shape) * sizeof(*data)));
  };
  if (is_bytes)
    write(results[0].GetTensorData<uint8_t>());
  else
    write(results[0].GetTensorData<float>());
  if (!file.flush()) throw std::runtime_error("cannot write " + output);
}

int main(int argc, char** argv) {
  // Before the first session, or ONNX Runtime keeps a store of what it runs, to send it to its maker. (On Windows: _putenv_s.)
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  try {
    if (argc < 3) throw std::runtime_error("run DIR FILE [NAME=VALUE …] [seed=N]");
    std::map<std::string, std::string> given;
    for (int i = 3; i < argc; i++) {
      const std::string pair = argv[i];
      const size_t at = pair.find('=');
      if (at == std::string::npos) throw std::runtime_error(pair + ": write NAME=VALUE");
      given[pair.substr(0, at)] = pair.substr(at + 1);
    }
    run(argv[1], argv[2], given);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
