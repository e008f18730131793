// A face to an expression on Android with LiteRT (com.google.ai.edge.litert:litert). Not compiled and not run: no device.
// Put encoder.tflite and head.tflite of `fer-edge export BUNDLE --target litert` into the app's assets.

import org.tensorflow.lite.Interpreter // its package in com.google.ai.edge.litert:litert up to 2.3, processor only
import java.nio.ByteBuffer
import java.nio.ByteOrder

class ExpressionClassifier(encoderFile: ByteBuffer, headFile: ByteBuffer, private val featureSize: Int, threads: Int = 2) {
    private val labels = listOf("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    private val options = Interpreter.Options().setNumThreads(threads).setUseXNNPACK(true)
    private val encoder = Interpreter(encoderFile, options)
    private val head = Interpreter(headFile, options)

    /** The feature of one grey face crop: 48 x 48 bytes, row by row. Keep the last 16 of a track for the window. */
    fun encode(face: ByteArray): FloatArray {
        val frames = ByteBuffer.allocateDirect(face.size).put(face).apply { rewind() }
        val features = Array(1) { FloatArray(featureSize) }
        encoder.runSignature(mapOf("frames" to frames), mapOf("features" to features), "encode")
        return features[0]
    }

    /** Logits of one feature ("frame") or of a full window of 16, oldest first ("window"). */
    fun logits(features: List<FloatArray>): FloatArray {
        val signature = if (features.size == 1) "frame" else "window"
        val input = ByteBuffer.allocateDirect(4 * features.size * featureSize).order(ByteOrder.nativeOrder())
        features.forEach { feature -> feature.forEach { input.putFloat(it) } }
        val logits = Array(1) { FloatArray(labels.size) }
        val inputs = mapOf("features" to input.apply { rewind() }, "length" to longArrayOf(features.size.toLong()))
        head.runSignature(inputs, mapOf("logits" to logits), signature)
        return logits[0] // divide by the temperature of the file's metadata before a softmax
    }

    fun label(logits: FloatArray) = labels[logits.indices.maxByOrNull { logits[it] }!!]
}
