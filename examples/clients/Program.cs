// Runs an artifact with ONNX Runtime's C# API.
//
//   dotnet new console -o client && cp Program.cs client/ && cd client && dotnet add package Microsoft.ML.OnnxRuntime
//   ORT_DISABLE_TELEMETRY=1 dotnet run -- DIR picture.ppm class_labels=18 [NAME=NUMBERS|NAME=FILE.npy …] [seed=1]
//
// Without that variable, ONNX Runtime keeps a store of what it runs, to send it to its maker. It has to be set outside: what a program in .NET
// sets, native libraries do not see. The result is a picture as .pgm or .ppm, or bare floats (bytes, where it is of them) under any other name.
// Not compiled where it was written.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Microsoft.ML.OnnxRuntime;

if (args.Length < 2)
{
    Console.Error.WriteLine("dotnet run -- DIR FILE [NAME=VALUE …] [seed=N]");
    return 1;
}
var (folder, output) = (args[0], args[1]);
var given = args.Skip(2).Select(pair => pair.Split('=', 2)).ToDictionary(parts => parts[0], parts => parts[1]);
using var document = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "manifest.json")));
var manifest = document.RootElement;
// The latent comes first, what a decoder makes of it last.
var shown = manifest.GetProperty("outputs").EnumerateArray().Last();
var shape = ShapeOf(shown);
var isPicture = output.EndsWith(".pgm") || output.EndsWith(".ppm");
// Bytes, with channels last, in place of floats.
var isBytes = shown.GetProperty("elem").GetString() == "uint8";
if (isPicture && (shape.Length != 4 || shape[isBytes ? 3 : 1] == 2)) throw new ArgumentException("the result is no picture: name a .bin file for it");

using var options = new SessionOptions();
// As `load` of the manifest advises: what the optimiser would do is done.
var load = manifest.GetProperty("load");
if (load.GetProperty("graphOptimizationLevel").GetString() == "disabled")
    options.GraphOptimizationLevel = GraphOptimizationLevel.ORT_DISABLE_ALL;
options.EnableMemoryPattern = load.GetProperty("enableMemPattern").GetBoolean();
// Else the runtime copies each weight into another layout, once for every node that reads it: for every step.
options.AddSessionConfigEntry("session.disable_prepacking", "1");
using var session = new InferenceSession(Path.Combine(folder, "model.onnx"), options);

var feeds = FeedsOf(manifest, given);
using var runOptions = new RunOptions();
using var results = session.Run(runOptions, feeds, new[] { shown.GetProperty("name").GetString()! });
if (isBytes) WriteBytes(output, results.First().GetTensorDataAsSpan<byte>());
else Write(output, results.First().GetTensorDataAsSpan<float>());
foreach (var feed in feeds.Values) feed.Dispose();
return 0;

static long[] ShapeOf(JsonElement port) => port.GetProperty("shape").EnumerateArray().Select(size => size.GetInt64()).ToArray();

// The inputs of a run by name: what was given for them, else what the manifest says.
static Dictionary<string, OrtValue> FeedsOf(JsonElement manifest, Dictionary<string, string> given)
{
    var random = new Random(given.TryGetValue("seed", out var seed) ? int.Parse(seed) : 0);
    var feeds = new Dictionary<string, OrtValue>();
    foreach (var port in manifest.GetProperty("inputs").EnumerateArray())
    {
        var name = port.GetProperty("name").GetString()!;
        var elem = port.GetProperty("elem").GetString()!;
        var shape = ShapeOf(port);
        var count = shape.Aggregate(1L, (product, size) => product * size);
        if (given.TryGetValue(name, out var text) && text.EndsWith(".npy"))
            feeds[name] = FromBytes(elem, Npy(text), shape);
        else if (text != null)
            feeds[name] = FromNumbers(elem, text.Split(',').Select(part => double.Parse(part, CultureInfo.InvariantCulture)).ToArray(), shape);
        else if (port.TryGetProperty("draw", out var draw) && draw.GetString() == "unit normal")
            feeds[name] = OrtValue.CreateTensorValueFromMemory(Normals(random, count), shape);
        else if (port.TryGetProperty("default", out var value))
            feeds[name] = FromNumbers(elem, new[] { value.GetDouble() }, shape);
        else
            throw new ArgumentException($"say what the input '{name}' [{string.Join(", ", shape)}] is: {name}=VALUE");
    }
    return feeds;
}

static float[] Normals(Random random, long count)
{
    var values = new float[count];
    for (var i = 0L; i < count; i++)
        values[i] = (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
    return values;
}

// All numbers of an input, one row for all of the batch, or one number.
static OrtValue FromNumbers(string elem, double[] given, long[] shape) => elem switch
{
    "float" => Repeated(given.Select(number => (float)number).ToArray(), shape),
    "double" => Repeated(given, shape),
    "int64" => Repeated(given.Select(number => (long)number).ToArray(), shape),
    "int32" => Repeated(given.Select(number => (int)number).ToArray(), shape),
    "bool" => Repeated(given.Select(number => number != 0).ToArray(), shape),
    _ => throw new ArgumentException($"inputs of type {elem} are given as .npy files"),
};

static OrtValue FromBytes(string elem, byte[] bytes, long[] shape) => elem switch
{
    "float" => Repeated(MemoryMarshal.Cast<byte, float>(bytes).ToArray(), shape),
    "double" => Repeated(MemoryMarshal.Cast<byte, double>(bytes).ToArray(), shape),
    "float16" => Repeated(MemoryMarshal.Cast<byte, Float16>(bytes).ToArray(), shape),
    "int64" => Repeated(MemoryMarshal.Cast<byte, long>(bytes).ToArray(), shape),
    "int32" => Repeated(MemoryMarshal.Cast<byte, int>(bytes).ToArray(), shape),
    "bool" => Repeated(MemoryMarshal.Cast<byte, bool>(bytes).ToArray(), shape),
    _ => throw new ArgumentException($"inputs of type {elem} are not known here"),
};

static OrtValue Repeated<T>(T[] given, long[] shape) where T : unmanaged
{
    var count = shape.Aggregate(1L, (product, size) => product * size);
    var row = shape.Length == 0 ? 1 : count / shape[0];
    if (given.Length != count && given.Length != row && given.Length != 1)
        throw new ArgumentException($"an input [{string.Join(", ", shape)}] has {count} numbers, and {given.Length} are given");
    var all = new T[count];
    for (var i = 0L; i < count; i++) all[i] = given[i % given.Length];
    return OrtValue.CreateTensorValueFromMemory(all, shape);
}

// The bytes of a .npy file (numpy's NEP 1) in C order, which must be of the input's type.
static byte[] Npy(string file)
{
    var bytes = File.ReadAllBytes(file);
    var start = bytes[6] == 1 ? 10 + BitConverter.ToUInt16(bytes, 8) : 12 + BitConverter.ToInt32(bytes, 8);
    if (!Encoding.Latin1.GetString(bytes, 0, start).Contains("'fortran_order': False")) throw new ArgumentException($"{file} is not in C order");
    return bytes[start..];
}

// [batch, height, width, channels] as one picture, the batch side by side.
void WriteBytes(string file, ReadOnlySpan<byte> bytes)
{
    using var stream = File.Create(file);
    if (!isPicture)
    {
        stream.Write(bytes);
        return;
    }
    var (batch, height, width, channels) = ((int)shape[0], (int)shape[1], (int)shape[2], (int)shape[3]);
    stream.Write(Encoding.ASCII.GetBytes($"{(channels == 1 ? "P5" : "P6")} {batch * width} {height} 255\n"));
    for (var y = 0; y < height; y++)
        for (var sample = 0; sample < batch; sample++)
            stream.Write(bytes.Slice((sample * height + y) * width * channels, width * channels));
}

// [batch, channels, height, width] as one picture, the batch side by side; of four channels or more, three are shown.
void Write(string file, ReadOnlySpan<float> values)
{
    if (!isPicture)
    {
        File.WriteAllBytes(file, MemoryMarshal.AsBytes(values).ToArray());
        return;
    }
    var (batch, channels, height, width) = ((int)shape[0], (int)shape[1], (int)shape[2], (int)shape[3]);
    var range = new[] { -1.0, 1.0 };
    if (manifest.GetProperty("recipe").TryGetProperty("display", out var display) && display.TryGetProperty("range", out var bounds))
        range = bounds.EnumerateArray().Select(bound => bound.GetDouble()).ToArray();
    var shownChannels = channels == 1 ? 1 : 3;
    using var stream = File.Create(file);
    stream.Write(Encoding.ASCII.GetBytes($"{(shownChannels == 1 ? "P5" : "P6")} {batch * width} {height} 255\n"));
    for (var y = 0; y < height; y++)
        for (var sample = 0; sample < batch; sample++)
            for (var x = 0; x < width; x++)
                for (var channel = 0; channel < shownChannels; channel++)
                {
                    var value = values[((sample * channels + channel) * height + y) * width + x];
                    stream.WriteByte((byte)Math.Round(Math.Clamp(255 * (value - range[0]) / (range[1] - range[0]), 0, 255)));
                }
}
