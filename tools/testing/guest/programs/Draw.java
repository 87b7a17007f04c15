// SPDX-License-Identifier: GPL-2.0
// Draws once for every line on standard input. Usage: java Draw random|secure
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.security.SecureRandom;
import java.util.Random;

public class Draw {
	public static void main(String[] arguments) throws Exception {
		Random generator = arguments[0].equals("secure") ? new SecureRandom() : new Random();
		BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));

		while (lines.readLine() != null)
			System.out.println(Long.toHexString(generator.nextLong()));
	}
}
