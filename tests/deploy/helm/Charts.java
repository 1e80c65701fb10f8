import java.nio.file.Files;
import java.nio.file.Path;

import com.marcnuri.helm.Helm;

/**
 * Renders a chart with Helm as a library: Charts CHART OUT VALUES... writes, for each file of values,
 * OUT/NAME.yaml with the manifests or OUT/NAME.error with what Helm says. Lints the chart as well.
 */
class Charts {
    public static void main(String[] arguments) throws Exception {
        var chart = Path.of(arguments[0]);
        var out = Path.of(arguments[1]);
        for (var i = 2; i < arguments.length; i++) {
            var values = Path.of(arguments[i]);
            var name = values.getFileName().toString().replace(".yaml", "");
            try {
                var manifests = new Helm(chart).template().withName("orders").withNamespace("shop")
                        .withKubeVersion("1.33.0").withValuesFile(values).call();
                Files.writeString(out.resolve(name + ".yaml"), manifests);
            } catch (RuntimeException refused) {
                Files.writeString(out.resolve(name + ".error"), String.valueOf(refused.getMessage()));
            }
        }
        var lint = new Helm(chart).lint().strict().call();
        if (lint.isFailed()) {
            System.err.println(String.join("\n", lint.getMessages()));
            System.exit(1);
        }
    }
}
