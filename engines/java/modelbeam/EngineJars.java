package modelbeam;

import java.io.File;
import java.io.IOException;
import java.lang.instrument.Instrumentation;
import java.net.URISyntaxException;
import java.util.jar.JarFile;

/**
 * Lets {@code java -jar job-server.jar} use the engine's own jars, from the folder {@code lib} beside it.
 *
 * <p>A job server sends every jar that it finds on its class path to the cluster, which has the
 * engine's already. A launcher agent (see the manifest) runs before {@code main} and may extend the
 * class path without being noticed.
 */
public final class EngineJars {
  private EngineJars() {}

  public static void agentmain(String arguments, Instrumentation virtualMachine)
      throws IOException, URISyntaxException {
    File self = new File(EngineJars.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    File[] jars = new File(self.getParentFile(), "lib").listFiles((folder, name) -> name.endsWith(".jar"));
    if (jars == null) {
      System.err.println("There is no folder lib with the engine's jars beside " + self + ".");
      System.exit(1);
    }
    for (File jar : jars) {
      virtualMachine.appendToSystemClassLoaderSearch(new JarFile(jar));
    }
  }
}
